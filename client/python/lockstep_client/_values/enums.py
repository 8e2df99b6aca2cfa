"""Enumerations of the wire by the names that callers use: `PADDING_SIDE_LEFT` is `left`."""

import functools
import re
from typing import Any

from google.protobuf.descriptor import EnumDescriptor


def values(enum: Any) -> dict[str, Any]:
    """Returns the values of an enumeration by name; the unspecified one has none."""
    names = {number: name(enum.DESCRIPTOR, number) for number in enum.values()}
    return {name: number for number, name in names.items() if name != "unspecified"}


@functools.cache
def name(enum: EnumDescriptor, value: int) -> str:
    """Returns the name of a value; one newer than this client is `unknown_<n>`."""
    if value not in enum.values_by_number:
        return f"unknown_{value}"
    prefix = re.sub(r"\B(?=[A-Z])", "_", enum.name).upper() + "_"
    full: str = enum.values_by_number[value].name
    return full.removeprefix(prefix).lower()
