"""Options that several commands share."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lockstep_client._cli.standard_streams import given_text
from lockstep_client._transport import address as addresses

_connection = partial(typer.Option, rich_help_panel="Connection")

DEFAULT_TOKENIZER = "localhost:50051"
DEFAULT_MODEL = "localhost:50052"


def _check_address(address: str) -> str:
    if (fault := addresses.fault(address)) is not None:
        raise typer.BadParameter(f"{address!r}: {fault}, such as {DEFAULT_TOKENIZER}.")
    return address


TokenizerAddress = Annotated[
    str,
    _connection(
        "--tokenizer",
        envvar="LOCKSTEP_TOKENIZER",
        metavar="HOST:PORT",
        help="Address of the tokenizer service.",
        callback=_check_address,
    ),
]
ModelAddress = Annotated[
    str,
    _connection(
        "--model",
        envvar="LOCKSTEP_MODEL",
        metavar="HOST:PORT",
        help="Address of the model service.",
        callback=_check_address,
    ),
]
TlsCa = Annotated[
    Path | None,
    _connection(
        "--tls-ca",
        envvar="LOCKSTEP_TLS_CA",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Connect with TLS and trust the authorities in this PEM file.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object.")]

Text = Annotated[
    str, typer.Argument(help="The text; `-` reads standard input.", callback=given_text)
]
Chat = Annotated[
    bool,
    typer.Option("--chat", "-c", help="Send the text as a question, through the chat template."),
]
