"""One sequence of bytes for one value, to be hashed and stored.

Canonical JSON here is UTF-8 JSON with keys sorted by code point, no white space,
nothing escaped that need not be, and numbers as Python writes them. A change is
the object `{"special_tokens": [..], "tokens": [..]}` whose members have the names
and the order of `vocabulary.revision`; the members of a token's `token` object
too. Values of an embedding row are base64. Every member is always present: what
is not set is `null` or `""`. One is not: `marked_tokens`, objects of `id` and
`token`, is left out when it is empty, as older changes were hashed without it.
"""

import base64
import json
from dataclasses import asdict
from typing import Any, get_args

from vocabulary.revision import (
    AddedToken,
    Change,
    Initialization,
    MarkedToken,
    NewToken,
    Role,
    SpecialToken,
)

_ADDED_TOKEN_TYPES: dict[str, tuple[type, ...]] = {
    "content": (str,),
    "special": (bool,),
    "single_word": (bool,),
    "lstrip": (bool,),
    "rstrip": (bool,),
    "normalized": (bool,),
}
_TOKEN_TYPES: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "token": (dict,),
    "previous_ids": (list,),
    "generable": (bool,),
    "initialization": (str,),
    "copy_token_id": (int, type(None)),
    "input_values": (str,),
    "output_values": (str,),
}


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
    return encode_json(change_members(change))


def change_members(change: Change) -> dict[str, Any]:
    """Returns the object that stands for a change in JSON."""
    members: dict[str, Any] = {
        "tokens": [_new_token(token) for token in change.tokens],
        "special_tokens": [
            {"role": special.role, "token_id": special.token_id}
            for special in change.special_tokens
        ],
    }
    if change.marked_tokens:
        members["marked_tokens"] = [
            {"id": marked.id, "token": asdict(marked.token)} for marked in change.marked_tokens
        ]
    return members


def decode_change(data: bytes) -> Change:
    """Reads what `encode_change` wrote.

    Raises:
        ValueError: the bytes are not an encoded change.
    """
    try:
        change = read_change(json.loads(data))
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError("These bytes are not an encoded change.") from error
    return change


def read_change(members: dict[str, Any]) -> Change:
    """Reads what `change_members` returned.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is not such an object.
    """
    return Change(
        tokens=tuple(_read_token(token) for token in members["tokens"]),
        special_tokens=tuple(_read_role(role) for role in members["special_tokens"]),
        marked_tokens=tuple(_read_marked(one) for one in members.get("marked_tokens", ())),
    )


def _new_token(new: NewToken) -> dict[str, Any]:
    return {
        "id": new.id,
        "token": asdict(new.token),
        "previous_ids": list(new.previous_ids),
        "generable": new.generable,
        "initialization": new.initialization,
        "copy_token_id": new.copy_token_id,
        "input_values": base64.b64encode(new.input_values).decode("ascii"),
        "output_values": base64.b64encode(new.output_values).decode("ascii"),
    }


def _read_token(members: dict[str, Any]) -> NewToken:
    _check_types(members, _TOKEN_TYPES)
    for token_id in members["previous_ids"]:
        _check_type(token_id, int)
    if members["initialization"] not in get_args(Initialization):
        raise ValueError("The initialization is unknown.")
    return NewToken(
        **members
        | {
            "token": _read_added_token(members["token"]),
            "previous_ids": tuple(members["previous_ids"]),
            "input_values": base64.b64decode(members["input_values"], validate=True),
            "output_values": base64.b64decode(members["output_values"], validate=True),
        }
    )


def _read_marked(members: dict[str, Any]) -> MarkedToken:
    _check_types(members, {"id": (int,), "token": (dict,)})
    return MarkedToken(**members | {"token": _read_added_token(members["token"])})


def _read_added_token(members: dict[str, Any]) -> AddedToken:
    _check_types(members, _ADDED_TOKEN_TYPES)
    return AddedToken(**members)


def _read_role(members: dict[str, Any]) -> SpecialToken:
    _check_types(members, {"role": (str,), "token_id": (int,)})
    if members["role"] not in get_args(Role):
        raise ValueError("The role is unknown.")
    return SpecialToken(**members)


def _check_types(members: dict[str, Any], types: dict[str, tuple[type, ...]]) -> None:
    for name, allowed in types.items():
        _check_type(members[name], *allowed)


def _check_type(value: object, *allowed: type) -> None:
    if type(value) not in allowed:  # `isinstance` takes True for a number
        raise TypeError("A member has the wrong type.")
