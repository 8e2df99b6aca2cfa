"""Options that several commands share."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lockstep_client._transport import address as addresses

_connection = partial(typer.Option, rich_help_panel="Connection")
_sampling = partial(typer.Option, rich_help_panel="Sampling")

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

MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", "-n", help="Most tokens to generate.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="End with this text. Can be given several times."),
]
Sample = Annotated[
    bool | None,
    _sampling(
        "--sample/--greedy",
        help="Draw tokens, or take the most probable ones. The model's default if neither.",
    ),
]
Temperature = Annotated[float | None, _sampling(help="Divisor of the logits. Implies --sample.")]
TopK = Annotated[
    int | None, _sampling(help="Keep the k best tokens; 0 keeps all. Implies --sample.")
]
TopP = Annotated[
    float | None, _sampling(help="Keep the best tokens up to this probability. Implies --sample.")
]
RepetitionPenalty = Annotated[
    float | None, _sampling(help="Divisor that makes repeated tokens less likely; 1 is off.")
]
Beams = Annotated[
    int | None,
    _sampling(
        "--beams",
        metavar="N",
        help="Number of beams of a search for the likeliest text, which is printed at its end.",
    ),
]
Seed = Annotated[
    int | None, _sampling(help="Seed of the draws. The same seed draws the same tokens.")
]


def sampling(
    sample: bool | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> dict[str, Any]:
    """Returns generation keywords. Those that shape a draw imply that tokens are drawn."""
    if sample is None and any(value is not None for value in (temperature, top_k, top_p)):
        sample = True
    return {
        "do_sample": sample,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
