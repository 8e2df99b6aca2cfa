"""One sequence of bytes for one value, to be hashed and stored.

Canonical JSON here is UTF-8 JSON with keys sorted by code point, no white space,
nothing escaped that need not be, and numbers as Python writes them. A change is
the object `{"special_tokens": [..], "tokens": [..]}` whose members have the names
and the order of `vocabulary.revision`; the members of a token's `token` object
too. Values of an embedding row are base64. Every member is always present: what
is not set is `null` or `""`.
"""

import base64
import json
from typing import Any

from vocabulary.revision import AddedToken, Change, NewToken, SpecialToken


def encode_json(value: object) -> bytes:
    """Encodes what `json.loads` can return.

    Raises:
        ValueError: the value holds NaN, infinity or half a surrogate pair.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return text.encode()


def encode_change(change: Change) -> bytes:
    """Encodes a change as canonical JSON."""
    return encode_json(
        {
            "tokens": [_new_token(token) for token in change.tokens],
            "special_tokens": [
                {"role": special.role, "token_id": special.token_id}
                for special in change.special_tokens
            ],
        }
    )


def decode_change(data: bytes) -> Change:
    """Reads what `encode_change` wrote.

    Raises:
        ValueError: the bytes are not an encoded change.
    """
    try:
        members = json.loads(data)
        return Change(
            tokens=tuple(_read_token(token) for token in members["tokens"]),
            special_tokens=tuple(SpecialToken(**role) for role in members["special_tokens"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("These bytes are not an encoded change.") from error


def _new_token(new: NewToken) -> dict[str, Any]:
    return {
        "id": new.id,
        "token": {
            "content": new.token.content,
            "special": new.token.special,
            "single_word": new.token.single_word,
            "lstrip": new.token.lstrip,
            "rstrip": new.token.rstrip,
            "normalized": new.token.normalized,
        },
        "previous_ids": list(new.previous_ids),
        "generable": new.generable,
        "initialization": new.initialization,
        "copy_token_id": new.copy_token_id,
        "input_values": base64.b64encode(new.input_values).decode("ascii"),
        "output_values": base64.b64encode(new.output_values).decode("ascii"),
    }


def _read_token(members: dict[str, Any]) -> NewToken:
    return NewToken(
        **members
        | {
            "token": AddedToken(**members["token"]),
            "previous_ids": tuple(members["previous_ids"]),
            "input_values": base64.b64decode(members["input_values"], validate=True),
            "output_values": base64.b64decode(members["output_values"], validate=True),
        }
    )
