"""Keywords where people look for them: `help()`, Shift-Tab and tab completion show them all."""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lockstep_client._requests import options as keyword_options

Class = TypeVar("Class", bound=type)


def with_keywords(described: Class) -> Class:
    """Gives the methods of a class that take keywords of options their names and meanings."""
    for method in vars(described).values():
        if inspect.isfunction(method):
            _describe(method)
    return described


def _describe(method: Callable[..., Any]) -> None:
    signature = inspect.signature(method)
    *own, last = signature.parameters.values()
    if typing.get_origin(last.annotation) is not typing.Unpack:
        return
    (options,) = typing.get_args(last.annotation)
    names = {parameter.name for parameter in own}
    keywords = [
        inspect.Parameter(name, last.KEYWORD_ONLY, default=None)
        for name in options.__annotations__
        if name not in names
    ]
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *keywords]
    )
    if method.__doc__:
        meanings = "\n".join(_meanings(options))
        method.__doc__ = f"{inspect.cleandoc(method.__doc__)}\n\nKeywords:\n{meanings}"


def _meanings(options: Any) -> Iterator[str]:
    """Yields what options, and those that they have all keywords of, say of each keyword."""
    extended = [
        each
        for each in (options, *vars(keyword_options).values())
        if typing.is_typeddict(each)
        and each.__annotations__.items() <= options.__annotations__.items()
    ]
    said: dict[str, str] = {}
    for each in reversed(extended):
        _, _, attributes = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        for text in re.split(r"^(?=    \w+: )", attributes, flags=re.MULTILINE):
            said[text.partition(":")[0].strip()] = text.rstrip()
    yield from (said[name] for name in options.__annotations__ if name in said)
