"""What every command does around its calls: connect, report failures, print JSON."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console

from lockstep_client.cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client.connection import Tls
from lockstep_client.exceptions import LockstepError
from lockstep_client.sync.lockstep import Lockstep

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

out = Console(highlight=False)
notes = Console(stderr=True, highlight=False)


@contextmanager
def connected(
    *,
    tokenizer: str = DEFAULT_TOKENIZER,
    model: str = DEFAULT_MODEL,
    tls_ca: Path | None = None,
) -> Iterator[Lockstep]:
    """Yields a client; a failure ends the command with one line and its exit code."""
    tls = None if tls_ca is None else Tls(ca=tls_ca.read_bytes())
    try:
        with Lockstep(tokenizer, model, tls=tls, stream_timeout=None) as client:
            yield client
            sys.stdout.flush()
    except LockstepError as error:
        print(f"lockstep: {describe(error)}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read the output has gone; keep the interpreter from flushing into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_FAILED) from None


def describe(error: LockstepError) -> str:
    """Says on one line what failed: the class, which names the reason, and the message."""
    parts = [str(error), *(f"{v.field}: {v.description}" for v in error.violations[1:])]
    hint = "" if error.retry_delay_s is None else f" (retry in {error.retry_delay_s:g} s)"
    return f"{type(error).__name__}: {' '.join('; '.join(parts).split())}{hint}"


def print_json(value: Any) -> None:
    """Prints a value on one line. Dataclasses become objects and bytes hexadecimal."""
    print(json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form.")
