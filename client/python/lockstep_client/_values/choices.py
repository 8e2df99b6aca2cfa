"""Keywords that take one of a few values."""

from collections.abc import Mapping
from typing import Any, TypeVar

_Choice = TypeVar("_Choice")


def choose(keyword: str, value: Any, choices: Mapping[Any, _Choice]) -> _Choice:
    """Looks up what a value of a keyword stands for.

    Args:
        keyword: its name, for the message.
        value: what the caller gave.
        choices: what each value stands for.

    Raises:
        ValueError: it is none of the values.
    """
    try:
        return choices[value]
    except (KeyError, TypeError):  # TypeError: what cannot be a key, a list for example
        names = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{keyword} is one of {names}, not {value!r}.") from None
