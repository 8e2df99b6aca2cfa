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


def difference(one: Path, other: Path) -> str:
    """Says where the vocabularies of two folders differ; nothing where they do not.

    Only ids and their tokens count. A folder without `tokenizer.json` says nothing of either.
    """
    paths = one / TOKENIZER_FILE, other / TOKENIZER_FILE
    if not all(path.is_file() for path in paths):
        return ""
    ours, theirs = (_tokens(json.loads(path.read_bytes())) for path in paths)
    for token_id in sorted(ours.keys() | theirs.keys()):
        token, other_token = ours.get(token_id), theirs.get(token_id)
        if token != other_token:
            return f"id {token_id} is {other_token!r}, not {token!r}"
    return ""


def _tokens(tokenizer: dict[str, Any]) -> dict[int, str]:
    """Returns the token of each id."""
    pieces = tokenizer["model"]["vocab"]
    if not isinstance(pieces, dict):
        pieces = {piece: token_id for token_id, (piece, _) in enumerate(pieces)}
    tokens = {token_id: piece for piece, token_id in pieces.items()}
    added = tokenizer.get("added_tokens") or []
    return tokens | {token["id"]: token["content"] for token in added}


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
