"""Reads what a result and its message call by the same name."""

import dataclasses
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor

from lockstep_client._values import enums

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
    for field in dataclasses.fields(result):  # type: ignore[arg-type]
        if field.name not in others:
            described = message.DESCRIPTOR.fields_by_name[field.name]
            absent = described.has_presence and not message.HasField(field.name)
            value = getattr(message, field.name)
            others[field.name] = None if absent else _plain(described, value)
    return result(**others)


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _scalar(entry, each) for key, each in sorted(value.items())}
    return [_scalar(field, each) for each in value] if field.is_repeated else _scalar(field, value)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    return value if field.enum_type is None else enums.name(field.enum_type, value)
