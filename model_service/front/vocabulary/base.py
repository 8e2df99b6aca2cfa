"""The vocabulary that a checkpoint came with: revision 0, as its `tokenizer.json` has it."""

import json
from pathlib import Path
from typing import Any

from vocabulary import Reference, base_fingerprint, tokenizer_id_of

TOKENIZER_FILE = "tokenizer.json"


def read_base_vocabulary(name: str, folder: Path) -> Reference | None:
    """Reads revision 0 of a checkpoint.

    Args:
        name: the checkpoint's name.
        folder: where its files are.

    Returns:
        The reference, or None when the folder has no `tokenizer.json`.

    Raises:
        ValueError: the file is not a tokenizer.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return None
    data = path.read_bytes()
    fingerprint = base_fingerprint(data)
    return Reference(tokenizer_id_of(name), 0, fingerprint, count_ids(json.loads(data)))


def count_ids(tokenizer: dict[str, Any]) -> int:
    """Returns the number of ids: the highest one plus one, as ids are dense.

    Args:
        tokenizer: content of `tokenizer.json`.

    Raises:
        ValueError: it has no vocabulary.
    """
    try:
        pieces = tokenizer["model"]["vocab"]
        ids = [token["id"] for token in tokenizer.get("added_tokens") or []]
        if isinstance(pieces, dict):
            ids += pieces.values()
        else:  # Unigram: a list of pieces with their scores
            ids.append(len(pieces) - 1)
        return int(max(ids)) + 1
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("tokenizer.json has no vocabulary.") from error
