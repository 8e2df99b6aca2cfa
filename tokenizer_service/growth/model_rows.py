"""What the checkpoint's `config.json` says about the vectors of new tokens.

This service has no weights. A vector that the model could not take would stop
its replicas at the revision that holds it, so what can be known here is refused
here; where the file is missing or silent, the model has the last word.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpc.errors import InvalidField
from tokenizer_service.growth.token_rules import TokenToAdd
from vocabulary import NewToken

CONFIG_FILE = "config.json"

# Names of the width of an embedding row, the more specific ones first.
_WIDTHS = ("word_embed_proj_dim", "embedding_size", "hidden_size", "n_embd", "d_model")


@dataclass(frozen=True, slots=True)
class ModelRows:
    """The rows of a model.

    Attributes:
        width: values of a row; None if it is not known.
        tied: whether output rows are surely the input rows.
        count: rows; None if it is not known. A tokenizer may have a few ids more.
    """

    width: int | None = None
    tied: bool = False
    count: int | None = None

    def check(self, tokens: Sequence[TokenToAdd | NewToken]) -> None:
        """Checks the vectors of tokens that are added.

        Raises:
            InvalidField: the model could not take one.
        """
        for index, token in enumerate(tokens):
            for name in ("input_values", "output_values"):
                count = len(getattr(token, name)) // 4
                if count and self.width is not None and count != self.width:
                    raise InvalidField(
                        f"tokens[{index}].{name}.shape",
                        f"must be [{self.width}], the width of the model's embedding rows",
                    )
            if self.tied and token.output_values not in (b"", token.input_values):
                raise InvalidField(
                    f"tokens[{index}].output_values",
                    "must be unset or equal to input_values, as the model's output rows are its "
                    "input rows",
                )

    def check_sources(self, index: int, new: NewToken, base_size: int) -> None:
        """Checks the ids whose rows the rows of a new token are made of.

        Args:
            index: of the token in the call.
            new: the token.
            base_size: ids of revision 0.

        Raises:
            InvalidField: one of them has no row.
        """
        missing = range(base_size if self.count is None else self.count, base_size)
        sources = {"copy": ("copy_token_id", (new.copy_token_id,))}
        pieces = {"mean_of_pieces": ("initialization", new.previous_ids)}
        field, ids = (sources | pieces).get(new.initialization, ("", ()))
        for token_id in ids:
            if token_id in missing:
                raise InvalidField(
                    f"tokens[{index}].{field}",
                    f"takes the row of id {token_id}, and the model has {self.count} rows; choose "
                    "another initialization",
                )


def read(folder: Path) -> ModelRows:
    """Reads what a checkpoint's folder says about the rows, if anything."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return ModelRows()
    if not isinstance(config, dict):
        return ModelRows()
    text = config.get("text_config")
    parts = [text, config] if isinstance(text, dict) else [config]
    widths = (part.get(name) for part in parts for name in _WIDTHS)
    return ModelRows(
        width=next((width for width in widths if _is_count(width)), None),
        tied=any(part.get("tie_word_embeddings") is True for part in parts),
        count=next((n for n in (part.get("vocab_size") for part in parts) if _is_count(n)), None),
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
