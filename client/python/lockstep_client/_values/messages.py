"""Messages built from what callers give, which may be of any type."""

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from lockstep_client._values import fields
from lockstep_client.exceptions import InvalidArgument, WrongType, WrongValue

Built = TypeVar("Built", bound=Message)

_KINDS = {
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
    FieldDescriptor.CPPTYPE_INT32: "a whole number below 2^31",
    FieldDescriptor.CPPTYPE_INT64: "a whole number below 2^63",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_STRING: "a text",
    FieldDescriptor.CPPTYPE_MESSAGE: "a mapping",
}


def build(message: type[Built], **values: Any) -> Built:
    """Builds a message.

    Args:
        message: its class.
        **values: of its fields; None stays unset.

    Raises:
        InvalidArgument: a value does not fit its field; it says which, and what would.
    """
    try:
        return message(**values)
    except (TypeError, ValueError, AttributeError):
        for name, value in values.items():
            check(message, name, value)
        raise


def check(
    message: type[Message], field_name: str, value: Any, keyword: str = "", kind: str = ""
) -> None:
    """Refuses a value that does not fit a field.

    Args:
        message: the class of the message.
        field_name: the field.
        value: what was given.
        keyword: how callers call the field, where that is another name.
        kind: what it takes in words, where the type of the field does not say it.

    Raises:
        InvalidArgument: it does not fit.
    """
    try:
        message(**{field_name: value})
    except InvalidArgument:
        raise
    except UnicodeError:
        raise WrongValue(
            f"{keyword or field_name} has a lone surrogate, which is no character: {value!r}."
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        kind = kind or expected(message.DESCRIPTOR.fields_by_name[field_name])
        wrong = WrongType if isinstance(error, TypeError | AttributeError) else WrongValue
        raise wrong(f"{keyword or field_name} is {kind}, not {value!r}.") from None


def expected(field: Any) -> str:
    """Says in words what a field takes."""
    kind = _KINDS.get(field.cpp_type, "another value")
    return f"a list, each entry {kind}" if fields.is_repeated(field) else kind
