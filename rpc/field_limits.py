"""Counts and measures the fields of a message in its bytes, before the message is parsed.

A message of 4 MB can hold two million empty rows or a million keys: parsing it
takes hundreds of megabytes, and walking through the result holds the event loop
for seconds. So the bytes are compared with the limits that the schema
declares (`lockstep/v1/limits.proto`), by one walk over the tags of the wire
format. Texts, bytes and packed numbers are skipped, and the walk ends at the
first field over its limit: its time is bounded by `MAX_FIELDS`, whatever a
message holds.

The parser still decides what is well formed. In a message that it accepts, no
list, map or text is larger than what was counted here.
"""

import math
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from lockstep.v1 import limits_pb2

from rpc.errors import InvalidField

MAX_FIELDS = 2**15
"""Most fields of a message, including the fields of the messages inside it."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_CONTINUED = bytes(range(128, 256))
"""The bytes of a varint before its last one."""

_FLOATS = {
    FieldDescriptor.TYPE_FLOAT: (_FIXED32, struct.Struct("<f")),
    FieldDescriptor.TYPE_DOUBLE: (_FIXED64, struct.Struct("<d")),
}
_TEXTS = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
_VARINTS = {
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SINT64,
}

_Counts = dict[int, Any]
"""What was counted of one message so far, by number of the field: the items of a repeated field, or
the counts of the message in a field that is not repeated, whose bytes may come in pieces."""


def check(data: bytes, message: Descriptor) -> None:
    """Compares the bytes of a message with the limits of its fields.

    Args:
        data: the bytes.
        message: the type.

    Raises:
        InvalidField: a field has more than it may, or is a float that is not finite.
        DecodeError: the bytes are not a message.
    """
    try:
        _Walk(data).message(_checks(message), 0, len(data), {})
    except _RefusedError as refused:
        raise InvalidField(".".join(reversed(refused.path)), refused.description) from None
    except IndexError:
        raise DecodeError("The bytes end within a field.") from None


def limits_of(field: FieldDescriptor) -> limits_pb2.FieldLimits:
    """Returns what the schema declares; 0 where it declares nothing."""
    limits: limits_pb2.FieldLimits = field.GetOptions().Extensions[limits_pb2.limits]  # type: ignore[index]
    return limits


class _RefusedError(Exception):
    """A field breaks its limits. The path grows from the innermost name outwards."""

    def __init__(self, name: str, description: str) -> None:
        self.path = [name]
        self.description = description


class _Check(Protocol):
    """Checks a field that comes with one wire type."""

    name: str

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        """Checks the bytes between two places, of a message with these counts.

        Raises:
            _RefusedError: they are too much.
        """


_Checks = Mapping[int, _Check]
"""By tag, that is by number and wire type of a field. What has none is skipped."""


@cache
def _checks(message: Descriptor) -> _Checks:
    """Reads the limits that the schema declares for a type of message."""
    checks: dict[int, _Check] = {}
    for field in message.fields:
        tag = field.number << 3
        if field.message_type is not None:
            inner = _checks(field.message_type)
            check = _Messages if field.is_repeated else _Message
            checks[tag | _BYTES] = check(field, inner)
        elif field.type in _TEXTS:
            checks[tag | _BYTES] = _Texts(field) if field.is_repeated else _Text(field)
        elif field.type in _FLOATS and not field.is_repeated:
            checks[tag | _FLOATS[field.type][0]] = _Float(field)
        elif field.is_repeated:
            assert field.type in _VARINTS, f"No check is written for {field.full_name}."
            checks[tag | _VARINT] = _Items(field)
            checks[tag | _BYTES] = _PackedVarints(field)
    return checks


class _Items:
    """A repeated field: every time that it comes it has one item more."""

    def __init__(self, field: FieldDescriptor) -> None:
        self.name = field.name
        self._number = field.number
        self._max_items = limits_of(field).max_items or math.inf

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        self.count(1, counts)

    def count(self, num_items: int, counts: _Counts) -> int:
        """Adds to the number of items that a message has; returns the number before."""
        before: int = counts.get(self._number, 0)
        total = counts[self._number] = before + num_items
        if total > self._max_items:
            many = total if num_items > 1 else f"more than {self._max_items}"
            raise _RefusedError(self.name, f"has {many} items; the limit is {self._max_items}")
        return before


class _PackedVarints(_Items):
    """Numbers of a repeated field, one behind the other."""

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        num_items = end - start  # bytes, of which a number has at least one
        if counts.get(self._number, 0) + num_items > self._max_items:
            num_items = len(walk.data[start:end].translate(None, _CONTINUED))
        self.count(num_items, counts)


class _Text:
    """A text, or bytes."""

    def __init__(self, field: FieldDescriptor) -> None:
        self.name = field.name
        self._max_bytes = limits_of(field).max_bytes or math.inf

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        if end - start > self._max_bytes:
            description = f"has {end - start} bytes; the limit is {self._max_bytes}"
            raise _RefusedError(self.name, description)


class _Texts(_Items):
    """A list of texts, or of bytes."""

    def __init__(self, field: FieldDescriptor) -> None:
        super().__init__(field)
        self._text = _Text(field)

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        index = self.count(1, counts)
        try:
            self._text(walk, start, end, counts)
        except _RefusedError as refused:
            raise _RefusedError(f"{self.name}[{index}]", refused.description) from None


class _Float:
    """A float."""

    def __init__(self, field: FieldDescriptor) -> None:
        self.name = field.name
        self._format = _FLOATS[field.type][1]
        self._or_minus_infinity = limits_of(field).minus_infinity

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        (value,) = self._format.unpack_from(walk.data, start)
        if not math.isfinite(value) and not (self._or_minus_infinity and value == -math.inf):
            finite = "finite or -inf" if self._or_minus_infinity else "finite"
            raise _RefusedError(self.name, f"must be {finite}")


class _Message:
    """A message inside of another."""

    def __init__(self, field: FieldDescriptor, inner: _Checks) -> None:
        self.name = field.name
        self._number = field.number
        self._inner = inner
        self._is_named = not limits_of(field).wrapped

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        inside = counts.setdefault(self._number, {})
        try:
            walk.message(self._inner, start, end, inside)
        except _RefusedError as refused:
            if self._is_named:
                refused.path.append(self.name)
            raise


class _Messages(_Items):
    """A list of messages, or a map: its entries are messages with a key and a value."""

    def __init__(self, field: FieldDescriptor, inner: _Checks) -> None:
        super().__init__(field)
        self._inner = inner

    def __call__(self, walk: "_Walk", start: int, end: int, counts: _Counts) -> None:
        index = self.count(1, counts)
        try:
            walk.message(self._inner, start, end, {})
        except _RefusedError as refused:
            refused.path.append(f"{self.name}[{index}]")
            raise


class _Walk:
    """One walk through the bytes of a message and of those inside of it.

    Attributes:
        data: the bytes of the outermost message.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._fields_left = MAX_FIELDS

    def message(self, checks: _Checks, at: int, end: int, counts: _Counts) -> None:
        """Checks the fields between two places.

        Args:
            checks: of the message's type.
            at: where it begins.
            end: behind its last byte.
            counts: what it had in the bytes before; they are updated.
        """
        data = self.data
        while at < end:
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = self._varint(at - 1)
            wire_type = tag & 7
            if wire_type == _BYTES:
                length = data[at]
                at += 1
                if length > 127:
                    length, at = self._varint(at - 1)
                start, at = at, at + length
            elif wire_type == _VARINT and data[at] < 128:
                start, at = at, at + 1
            else:
                start, at = at, self._skip(wire_type, at)
            if at > end:
                raise DecodeError("A field is longer than its message.")
            check = checks.get(tag)
            self._fields_left -= 1
            if self._fields_left < 0:
                name = check.name if check else f"field {tag >> 3}"
                raise _RefusedError(name, f"exceeds the limit of {MAX_FIELDS} fields in a message")
            if check is not None:
                check(self, start, at, counts)

    def _skip(self, wire_type: int, at: int) -> int:
        """Returns where a value ends that begins at a place."""
        if wire_type == _VARINT:
            return self._varint(at)[1]
        if wire_type == _FIXED32:
            return at + 4
        if wire_type == _FIXED64:
            return at + 8
        raise DecodeError("Messages of proto3 have no groups.")

    def _varint(self, at: int) -> tuple[int, int]:
        """Reads a varint; returns it and where it ends."""
        value = 0
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
        raise DecodeError("A number is longer than 64 bits.")
