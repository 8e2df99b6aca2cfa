"""Checks of single request fields. Everything wrong is an `InvalidField` naming its path."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rpc.errors import InvalidField, TokenIdOutOfRange
from rpc.slices import slices

MAX_ROW_LENGTH = 2**20
MAX_PAD_MULTIPLE = 4096
# Ids and tokens looked up by one call.
MAX_LOOKUPS = 65536
_MAX_JSON_DEPTH = 64


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits an operator sets; `GetTokenizerInfo` states them.

    Attributes:
        max_items: texts, rows or conversations of one call.
        max_text_bytes: of one text.
        max_message_bytes: of one request message; the server checks it.
        max_padded_cells: rows times length of a padded batch.
    """

    max_items: int
    max_text_bytes: int
    max_message_bytes: int
    max_padded_cells: int


def check_range(field: str, value: int, low: int, high: int) -> int:
    """Returns `value` if it is in [low, high].

    Raises:
        InvalidField: it is not.
    """
    if not low <= value <= high:
        raise InvalidField(field, f"must be in [{low}, {high}]")
    return value


def check_count(field: str, items: Sequence[object], limit: int) -> None:
    """Checks that there is at least one item and not too many.

    Raises:
        InvalidField: there is none, or more than `limit`.
    """
    if not 1 <= len(items) <= limit:
        raise InvalidField(field, f"must have 1 to {limit} entries, not {len(items)}")


def check_text(field: str, text: str, limits: RequestLimits) -> str:
    """Returns a text if it is short enough.

    Raises:
        InvalidField: it is too long.
    """
    # A character has at most 4 bytes, so most texts need not be encoded to know.
    if len(text) * 4 > limits.max_text_bytes and len(text.encode()) > limits.max_text_bytes:
        raise InvalidField(field, f"must have at most {limits.max_text_bytes} bytes")
    return text


def check_enum(field: str, value: int, known: dict[int, Any]) -> Any:
    """Returns what an enum's value means.

    Raises:
        InvalidField: this version does not know the value.
    """
    if value not in known:
        raise InvalidField(field, "has a value that this version does not know")
    return known[value]


def check_ids(field: str, row: int, ids: Sequence[int], size: int) -> None:
    """Checks that every id is in the vocabulary.

    Raises:
        TokenIdOutOfRange: one is not.
    """
    if all(min(some) >= 0 and max(some) < size for some in slices(ids)):
        return
    index, token_id = next(
        (index, token_id) for index, token_id in enumerate(ids) if not 0 <= token_id < size
    )
    raise TokenIdOutOfRange(field, row=row, index=index, token_id=token_id, vocabulary_size=size)


def read_json(field: str, text: str, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """Reads JSON that a caller sent.

    Raises:
        InvalidField: it is not JSON of that kind, nests too deeply, or holds a number or a
            string that text cannot be made of.
    """
    name = "object" if kind is dict else "array"
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        # Half a surrogate pair passes `loads`, and everything after it fails.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InvalidField(field, f"must be a JSON {name}") from None
    if not isinstance(value, kind) or _depth(value) > _MAX_JSON_DEPTH:
        raise InvalidField(field, f"must be a JSON {name} of at most {_MAX_JSON_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
    return depth
