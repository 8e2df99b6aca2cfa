"""Enumerations of the wire by the names that callers use: `PADDING_SIDE_LEFT` is `left`."""

import re
from typing import Any


def values(enum: Any) -> dict[str, Any]:
    """Returns the values of an enumeration by name; the unspecified one has none."""
    names = {number: _name(enum.DESCRIPTOR, number) for number in enum.values()}
    return {name: number for number, name in names.items() if name != "unspecified"}


def name(enum: Any, value: int) -> str:
    """Returns the name of a value; one newer than this client is `unknown_<n>`.

    Args:
        enum: the enumeration, or its descriptor.
        value: the value.
    """
    return _name(getattr(enum, "DESCRIPTOR", enum), value)


def _name(descriptor: Any, value: int) -> str:
    if value not in descriptor.values_by_number:
        return f"unknown_{value}"
    prefix = re.sub(r"\B(?=[A-Z])", "_", descriptor.name).upper() + "_"
    full: str = descriptor.values_by_number[value].name
    return full.removeprefix(prefix).lower()
