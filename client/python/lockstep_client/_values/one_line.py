"""How values are printed: on one line, which is short whatever they hold."""

import dataclasses
import reprlib
from typing import Any, Final

MAX_LENGTH: Final = 400
_MAX_ITEMS: Final = 6

_OTHERS: Final = reprlib.Repr()
_OTHERS.maxstring = _OTHERS.maxother = 60


def one_line(value: Any) -> str:
    """Describes a dataclass by its fields; what is None or empty is left out."""
    shown = [
        f"{field.name}={_short(content)}"
        for field in dataclasses.fields(value)
        if field.repr and not _is_empty(content := getattr(value, field.name))
    ]
    return _cut(f"{type(value).__name__}({', '.join(shown)})")


def described(value: object, facts: str) -> str:
    """Describes what is more than its fields, such as a connection."""
    return _cut(f"<{type(value).__name__} {facts}>")


def some(items: Any) -> str:
    """Returns the first items of a list or tuple, and says how many there are."""
    shown = ", ".join(_short(item) for item in items[:_MAX_ITEMS])
    more = f", ... {len(items)} in all" if len(items) > _MAX_ITEMS else ""
    return f"[{shown}{more}]"


def _is_empty(content: Any) -> bool:
    return content is None or (isinstance(content, str | list | tuple | dict) and not content)


def _short(content: Any) -> str:
    if hasattr(content, "dtype") and hasattr(content, "shape") and len(content.shape):
        return f"{str(content.dtype).removeprefix('torch.')}{list(content.shape)}"
    if isinstance(content, list | tuple):
        return some(content)
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return _cut(repr(content), MAX_LENGTH // 4)
    return _cut(_OTHERS.repr(content), MAX_LENGTH // 4)


def _cut(text: str, length: int = MAX_LENGTH) -> str:
    return text if len(text) <= length else f"{text[: length - 4]}...{text[-1]}"
