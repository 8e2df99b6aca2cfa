"""Checks how high the ids of a tokenizer are, before anybody makes a table of them.

A table has a place for every id up to the highest, so one token with an id of its own choice
takes memory at will. Vocabularies do leave ids out, reserved ones above all, but few of them.
"""

from pathlib import Path
from typing import Any

from checkpoints.errors import CheckpointError

# Unused ids that a vocabulary may have besides as many as it has tokens. The largest
# vocabularies have 2^18 tokens, and none that is known leaves out more than some thousands.
UNUSED_IDS = 2**16


def check(tokenizer: dict[str, Any], path: Path) -> None:
    """Refuses a tokenizer with an id far above the number of its tokens.

    What is no vocabulary or no id passes: that is for the library to say.

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
            f"place for every id, so ids of {limit} and more are refused for so few tokens: give "
            "the token the id of its row in the model, or take the tokenizer that belongs to it."
        )
