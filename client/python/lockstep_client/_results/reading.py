"""Reads what a result and its message call by the same name."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from lockstep_client._values import enums, fields

Result = TypeVar("Result")


def read(result: type[Result], message: Any, **others: Any) -> Result:
    """Builds a result from a message.

    Lists, mappings and names of enumerations are those of Python, and None stands for
    what is not set.

    Args:
        result: a dataclass.
        message: the message.
        **others: the fields of the result that have another name or shape in it.
    """
    dataclass: Any = result
    for name, has_presence, convert in _fields(dataclass, message.DESCRIPTOR):
        if name not in others:
            absent = has_presence and not message.HasField(name)
            others[name] = None if absent else convert(getattr(message, name))
    return result(**others)


@functools.cache
def _fields(result: Any, message: Descriptor) -> list[tuple[str, bool, Callable[[Any], Any]]]:
    """Returns name, presence and conversion of the fields that both have."""
    both = [f.name for f in dataclasses.fields(result) if f.name in message.fields_by_name]
    described = [message.fields_by_name[name] for name in both]
    return [(field.name, field.has_presence, _conversion(field)) for field in described]


def _conversion(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_value = _conversion(field.message_type.fields_by_name["value"])
        return lambda entries: {key: of_value(entries[key]) for key in sorted(entries)}
    if field.enum_type is not None:
        of_one: Callable[[Any], Any] = functools.partial(enums.name, field.enum_type)
    else:
        of_one = _same
    return (
        (lambda values: [of_one(value) for value in values])
        if fields.is_repeated(field)
        else of_one
    )


def _same(value: Any) -> Any:
    return value
