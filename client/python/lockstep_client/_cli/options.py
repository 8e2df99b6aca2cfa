"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

CONNECTION_PANEL = "Connection"
SAMPLING_PANEL = "Sampling"

DEFAULT_TOKENIZER = "localhost:50051"
DEFAULT_MODEL = "localhost:50052"

TokenizerAddress = Annotated[
    str,
    typer.Option(
        "--tokenizer",
        envvar="LOCKSTEP_TOKENIZER",
        metavar="HOST:PORT",
        help="Address of the tokenizer service.",
        rich_help_panel=CONNECTION_PANEL,
    ),
]
ModelAddress = Annotated[
    str,
    typer.Option(
        "--model",
        envvar="LOCKSTEP_MODEL",
        metavar="HOST:PORT",
        help="Address of the model service.",
        rich_help_panel=CONNECTION_PANEL,
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        envvar="LOCKSTEP_TLS_CA",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Connect with TLS and trust the authorities in this PEM file.",
        rich_help_panel=CONNECTION_PANEL,
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
    typer.Option(
        "--sample/--greedy",
        help="Draw tokens, or take the most probable ones. The model's default if neither.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="Divisor of the logits. Implies --sample.", rich_help_panel=SAMPLING_PANEL),
]
TopK = Annotated[
    int | None,
    typer.Option(
        help="Keep the k best tokens; 0 keeps all. Implies --sample.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Keep the best tokens up to this probability. Implies --sample.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        help="Makes tokens of the sequence less likely; 1 does not.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Beams = Annotated[
    int | None,
    typer.Option(
        "--beams",
        metavar="N",
        help="Number of beams of a search for the likeliest text, which is printed at its end.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Reproduces the draws.", rich_help_panel=SAMPLING_PANEL),
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
