"""Messages drawn from the descriptors of the schema: ordinary ones, hostile ones, broken bytes."""

import json
import math
import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Place = tuple[FieldDescriptor, ...]
"""A field of a message, behind the fields of the messages around it."""

_INT32 = [-(2**31), -1, 0, 1, 2, 63, 2**16, 2**31 - 1]
_INT64 = [*_INT32, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)]
_TEXTS = [
    *("", " ", "a", "<|x|>", "\0", "\x1b[31m", "\u202e\u2066", "\ufdd0", "\U0010ffff", "é" * 100),
    *("{}", "[]", "null", "[[[[[[[[", '{"a": NaN}', '{"role": 1}', '[{"x": 1e999}]', "-1", "0"),
    *("a" * 300, "a" * 70_000, "\U0001f600" * 20_000),
    *('{"penalty": 1e-45}', '{"temperature": 1e-45}', '{"keys": [1], "ngram_len": 2}'),
    json.dumps({"keys": [1] * 20_000, "ngram_len": 5}),
    json.dumps({"token_ids": list(range(10_000))}),
    json.dumps({f"k{index}": [[{}]] for index in range(3_000)}),
]
_FLOATS = [
    *(0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 100.0, -100.0, 1e6, 1e-6),
    *(1e-45, 1e-38, 1.1754944e-38, 3.4e38, -3.4e38, math.nan, math.inf, -math.inf),
]
_COUNTS = [65, 300, 1_025, 4_097, 20_000, 70_000, 270_000, 1_100_000, 4_000_000]
_ABSURD = 0.3
MOST_BYTES = 3_900_000
"""Most bytes of a field: a message of more is refused before anybody looks at it."""

_TEXTUAL = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
_VALUES: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_BOOL: [False, True],
    FieldDescriptor.TYPE_ENUM: [-1, 0, 1, 2, 3, 4, 99, 2**31 - 1],
    FieldDescriptor.TYPE_FLOAT: _FLOATS,
    FieldDescriptor.TYPE_DOUBLE: _FLOATS,
    FieldDescriptor.TYPE_STRING: _TEXTS,
    FieldDescriptor.TYPE_BYTES: [b"", b"\0", bytes(8), b"\xff" * 16, bytes(100_000)],
}
_ORDINARY: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_INT32: [0, 1, 5, 2**31 - 1, -1],
    FieldDescriptor.TYPE_INT64: [0, 1, 5, 2**63 - 1, -1],
    FieldDescriptor.TYPE_BOOL: [False, True],
    FieldDescriptor.TYPE_ENUM: [0, 1, 2],
    FieldDescriptor.TYPE_FLOAT: [0.0, 0.5, 1.0, -3e38],
    FieldDescriptor.TYPE_DOUBLE: [0.0, 0.5, 1.0],
    FieldDescriptor.TYPE_STRING: ["", "a", "é", "{}"],
    FieldDescriptor.TYPE_BYTES: [b"", b"\0", b"abcd"],
}


def places(message: Descriptor, around: Place = ()) -> Iterator[Place]:
    """Yields every field of a type of message and of the messages inside of it."""
    for field in message.fields:
        yield (*around, field)
        if field.message_type is not None:
            yield from places(field.message_type, (*around, field))


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def in_bytes(field: FieldDescriptor, content: bytes) -> bytes:
    """Writes a field that holds bytes, a text or a message."""
    return _varint(field.number << 3 | 2) + _varint(len(content)) + content


def items_in_bytes(field: FieldDescriptor, count: int) -> bytes:
    """Writes so many items of a repeated field, each as small as can be."""
    if field.message_type is not None or field.type in _TEXTUAL:
        return in_bytes(field, b"") * count
    return in_bytes(field, bytes(count))


def wrapped(place: Place, content: bytes) -> bytes:
    """Puts the bytes of a field into the messages around it."""
    for field in reversed(place[:-1]):
        content = in_bytes(field, content)
    return content


def ordinary(rng: random.Random, kind: Descriptor) -> Message:
    """Draws a message with a few fields set to small values."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if rng.random() < 0.3:
            count = rng.randint(1, 3) if field.is_repeated else 1
            _fill(rng, message, field, count, _ORDINARY)
    return message


def corrupted(rng: random.Random, data: bytes) -> bytes:
    """Draws bytes that are nearly a message: cut, changed, repeated, with others in between."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(changed))
        match rng.choice(["cut", "end", "insert", "repeat", "flip"]):
            case "cut":
                del changed[place : place + rng.randint(1, 8)]
            case "end":
                del changed[place:]
            case "insert":
                changed[place:place] = rng.randbytes(rng.randint(1, 8))
            case "repeat":
                changed += changed[place:] * rng.choice([1, 2, 40, 1000])
            case "flip" if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
        del changed[2**20 :]
    return bytes(changed)


def with_hostile_field(rng: random.Random, message: Message, place: Place) -> bytes:
    """Writes a message with one field at the edge of its type, or with absurdly much in it."""
    field = place[-1]
    data = message.SerializeToString()
    if rng.random() < _ABSURD and (field.is_repeated or field.type in _TEXTUAL):
        count = rng.choice(_COUNTS)
        if field.is_repeated:
            size = 2 if field.message_type is not None or field.type in _TEXTUAL else 1
            content = items_in_bytes(field, min(count, MOST_BYTES // size))
        else:
            content = in_bytes(field, b"a" * min(count, MOST_BYTES))
        return data + wrapped(place, content)
    inner = GetMessageClass(field.containing_type)()
    _fill(rng, inner, field, rng.choice([0, 1, 2, 9]) if field.is_repeated else 1, _VALUES)
    return data + wrapped(place, inner.SerializeToString())


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes((*digits, number))


def _fill(
    rng: random.Random,
    message: Message,
    field: FieldDescriptor,
    count: int,
    values: dict[int, list[Any]],
) -> None:
    """Sets a field, a repeated one to so many items."""
    target = getattr(message, field.name)
    if is_map(field):
        key, value = field.message_type.fields
        for _ in range(count):
            target[rng.choice(values[key.type])] = rng.choice(values[value.type])
    elif field.message_type is not None and field.is_repeated:
        target.extend(ordinary(rng, field.message_type) for _ in range(count))
    elif field.message_type is not None:
        target.CopyFrom(ordinary(rng, field.message_type))
        target.SetInParent()
    elif field.is_repeated:
        target.extend(rng.choice(values[field.type]) for _ in range(count))
    else:
        setattr(message, field.name, rng.choice(values[field.type]))
