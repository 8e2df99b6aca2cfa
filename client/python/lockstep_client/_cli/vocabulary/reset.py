"""`lockstep vocab reset`."""

import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated

import typer


def reset(
    *,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="--model of the tokenizer service.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="--store of the tokenizer service.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
) -> None:
    """Begin the vocabulary of a stopped tokenizer service on this machine again.

    The file of its store is kept under another name.
    """
    if find_spec("tokenizer_service") is None:
        raise typer.BadParameter(
            "the tokenizer service is not installed here: run it where the service runs."
        )
    named = {"--model": model, "--store": store}
    flags = [part for name, value in named.items() if value for part in (name, value)]
    command = [sys.executable, "-m", "tokenizer_service.reset", *flags]
    raise typer.Exit(subprocess.call([*command, "--yes"] if yes else command))
