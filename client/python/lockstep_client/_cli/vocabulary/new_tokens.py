"""Tokens to add, from the words and files of a command line."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import typer

from lockstep_client import Lockstep, NewToken
from lockstep_client._values.tensors import Array


class Role(StrEnum):
    """What a special token can be for."""

    BOS = "bos"
    EOS = "eos"
    PAD = "pad"
    UNK = "unk"
    SEP = "sep"
    CLS = "cls"
    MASK = "mask"


class Initialization(StrEnum):
    """How the embedding rows of new ids get their values, where no vectors are given."""

    MEAN_OF_PIECES = "mean-of-pieces"
    MEAN = "mean"
    ZERO = "zero"


VALUES_HELP: Final = "An .npy file of float values, one row of the hidden size per token."


def new_tokens(
    contents: Sequence[str],
    *,
    flags: dict[str, Any],
    input_values: Path | None,
    output_values: Path | None,
) -> list[NewToken]:
    """Builds tokens that share flags and have a row each of the files.

    Raises:
        typer.BadParameter: a file is not a matrix with a row for each token.
    """
    inputs = _rows(input_values, "--input-values", len(contents))
    outputs = _rows(output_values, "--output-values", len(contents))
    if outputs is not None and inputs is None:
        raise typer.BadParameter("needs --input-values.", param_hint="--output-values")
    return [
        NewToken(
            content,
            **flags,
            input_values=None if inputs is None else inputs[index],
            output_values=None if outputs is None else outputs[index],
        )
        for index, content in enumerate(contents)
    ]


def id_of(client: Lockstep, token: str, option: str) -> int:
    """Returns an id given as a number, or by the spelling of its token.

    Raises:
        typer.BadParameter: no token is spelled so.
    """
    if token.isascii() and token.isdecimal():
        return int(token)
    (token_id,) = client.tokenizer.convert_tokens([token]).ids
    if token_id is None:
        raise typer.BadParameter(f"{token!r} is not in the vocabulary.", param_hint=option)
    return token_id


def _rows(path: Path | None, option: str, count: int) -> Array | None:
    if path is None:
        return None
    try:
        values: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise typer.BadParameter(f"{path} is not an .npy file.", param_hint=option) from None
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or len(values) != count or not np.issubdtype(values.dtype, np.floating):
        raise typer.BadParameter(
            f"{path} holds {values.dtype} of shape {list(values.shape)}; expected are floats of "
            f"shape [{count}, hidden size], a row for each token.",
            param_hint=option,
        )
    return values
