"""Checks how high the ids of a tokenizer are, before a table of them is made.

A table has a place for every id up to the highest, so a single token with a huge id would take
all memory. Vocabularies do skip ids, mostly reserved ones, but only a few.
"""

from pathlib import Path
from typing import Any

from checkpoints.errors import CheckpointError

# A vocabulary of n tokens may have n + UNUSED_IDS unused ids. The largest vocabularies have
# 2^18 tokens, and every known one skips at most some thousands.
UNUSED_IDS = 2**16


def check(tokenizer: dict[str, Any], path: Path) -> None:
    """Refuses a tokenizer with an id far above the number of its tokens.

    What is not a vocabulary or not an id passes: the library refuses it.

    Args:
        tokenizer: content of `tokenizer.json`.
        path: the file.

    Raises:
        CheckpointError: an id is too high.
    """
    model = tokenizer.get("model")
    pieces = model.get("vocab") if isinstance(model, dict) else None
    added = tokenizer.get("added_tokens")
    added = added if isinstance(added, list) else []
    ids = [token.get("id") for token in added if isinstance(token, dict)]
    if isinstance(pieces, dict):
        ids += pieces.values()
    num_tokens = len(added) + (len(pieces) if isinstance(pieces, dict | list) else 0)
    limit = 2 * num_tokens + UNUSED_IDS
    highest = max((token_id for token_id in ids if isinstance(token_id, int)), default=-1)
    if highest >= limit:
        raise CheckpointError(
            f"{path} has {num_tokens} tokens, one of them with the id {highest}. Tables have a "
            f"place for every id, so with {num_tokens} tokens ids of {limit} and above are "
            "refused: give the token the id of its row in the model, or use the tokenizer that "
            "belongs to the model."
        )
