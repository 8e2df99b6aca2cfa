"""Fields of messages, described the same by every release of protobuf that the client takes."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor


def is_repeated(field: FieldDescriptor) -> bool:
    """Returns whether a field is a list or a map."""
    if hasattr(field, "is_repeated"):
        return field.is_repeated
    before_6_31: Any = field
    return bool(before_6_31.label == FieldDescriptor.LABEL_REPEATED)
