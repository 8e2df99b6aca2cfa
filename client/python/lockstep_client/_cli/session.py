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

from lockstep_client import Lockstep, Tls
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.wording import describe
from lockstep_client.exceptions import InvalidArgument, InvalidField, LockstepError

EXIT_FAILED: Final = 1
EXIT_WRONG: Final = 2
EXIT_INTERRUPTED: Final = 130

# The certificate that a command shows (mutual TLS), and its key: PEM files.
CERTIFICATE_VARIABLE: Final = "LOCKSTEP_TLS_CERTIFICATE"
KEY_VARIABLE: Final = "LOCKSTEP_TLS_KEY"

# The file with the bearer token that a command shows, and whether it may without TLS.
TOKEN_VARIABLE: Final = "LOCKSTEP_TOKEN_FILE"
PLAIN_TEXT_VARIABLE: Final = "LOCKSTEP_TOKEN_IN_PLAIN_TEXT"

out = Console(highlight=False)
notes = Console(stderr=True, highlight=False)


@contextmanager
def connected(
    *,
    tokenizer: str = DEFAULT_TOKENIZER,
    model: str = DEFAULT_MODEL,
    tls_ca: Path | None = None,
) -> Iterator[Lockstep]:
    """Yields a client.

    Raises:
        typer.Exit: a call failed; one line has said why.
    """
    tls = _tls(tls_ca)
    try:
        with Lockstep(
            tokenizer,
            model,
            tls=tls,
            stream_timeout=None,
            token=Path(token_file) if (token_file := os.environ.get(TOKEN_VARIABLE)) else None,
            token_in_plain_text=bool(os.environ.get(PLAIN_TEXT_VARIABLE)),
        ) as client:
            yield client
            sys.stdout.flush()
    except LockstepError as error:
        print(f"lockstep: {describe(error)}", file=sys.stderr)
        wrong = isinstance(error, InvalidArgument | InvalidField)
        raise typer.Exit(EXIT_WRONG if wrong else EXIT_FAILED) from None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read the output has gone; keep the interpreter from flushing into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_FAILED) from None


def _tls(ca: Path | None) -> Tls | None:
    """Returns the transport security of a command, its own certificate from the environment.

    Raises:
        typer.BadParameter: a certificate without its key, or a file that cannot be read.
    """
    certificate, key = (os.environ.get(name) for name in (CERTIFICATE_VARIABLE, KEY_VARIABLE))
    if bool(certificate) != bool(key):
        raise typer.BadParameter(f"Set both {CERTIFICATE_VARIABLE} and {KEY_VARIABLE}, or neither.")
    if ca is None and not certificate:
        return None
    try:
        return Tls(
            ca=ca.read_bytes() if ca else None,
            certificate=Path(certificate).read_bytes() if certificate else None,
            key=Path(key).read_bytes() if key else None,
        )
    except OSError as error:
        raise typer.BadParameter(f"{error.filename} cannot be read: {error.strerror}.") from None


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
