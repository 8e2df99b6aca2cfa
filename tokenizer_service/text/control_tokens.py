"""Keeps control tokens out of untrusted text.

A control token (`<|im_end|>`) spelled in a text must stay the characters it is
spelled with, whatever the tokenizer's model would make of them: Unigram, WordPiece
and WordLevel vocabularies contain the spelling and would match it, and some BPE
vocabularies can merge it. So untrusted text is encoded by a second tokenizer, equal
to the first but for the spelling of its control tokens: there each is an alias
that holds a random number of 128 bits and that no text can contain by design. Ids
are the same. A trusted party, a chat template, places a control token by writing
its alias.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

# Noncharacters never occur in interchanged text and are not letters, digits or space.
_ALIAS_START, _ALIAS_END = "\ufdd0", "\ufdd1"


class Aliases:
    """The secret spellings of control tokens. One object per loaded tokenizer."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(16)

    def of(self, token_id: int) -> str:
        """Returns the alias of the control token with an id, the same each time.

        Aliases begin alike and differ in few characters, so that a matcher for
        thousands of them is small.
        """
        return f"{_ALIAS_START}{self._nonce}{token_id:x}{_ALIAS_END}"


def disarm(tokenizer_json: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Returns `tokenizer.json` with every control token spelled as its alias.

    Args:
        tokenizer_json: the members of `tokenizer.json`.
        names: the alias of each control token.
    """
    members = dict(tokenizer_json)
    members["added_tokens"] = [
        token | {"content": names[token["content"]], "normalized": False, "single_word": False}
        if token["content"] in names
        else token
        for token in members.get("added_tokens") or ()
    ]
    members["model"] = _disarm_model(members["model"], names)
    return json.dumps(members, ensure_ascii=False)


def _disarm_model(model: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    renamed = dict(model)
    if isinstance(vocab := model["vocab"], dict):
        renamed["vocab"] = {names.get(piece, piece): index for piece, index in vocab.items()}
    else:  # Unigram: a list of pieces with scores
        renamed["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if model.get("unk_token") in names:
        renamed["unk_token"] = names[model["unk_token"]]
    if merges := model.get("merges"):
        renamed["merges"] = [merge for merge in merges if not _makes_any(merge, names)]
    return renamed


def _makes_any(merge: str | list[str], names: Mapping[str, str]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names
