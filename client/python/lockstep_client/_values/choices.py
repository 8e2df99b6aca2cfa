"""Which keywords exist, and which take one of a few values."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lockstep_client.exceptions import WrongType, WrongValue

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
        raise WrongValue(f"{keyword} is one of {names}, not {value!r}.") from None


def check_names(names: Iterable[str], options: type) -> None:
    """Refuses keywords that do not exist.

    Args:
        names: what the caller gave.
        options: the TypedDict of the keywords that exist.

    Raises:
        TypeError: one does not. It says which was probably meant.
    """
    for name in names:
        if name not in options.__annotations__:
            close = difflib.get_close_matches(name, options.__annotations__, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise WrongType(f"{name!r} is not a keyword argument of this call.{meant}")
