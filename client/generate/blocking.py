"""The blocking surface of the client, made from the asyncio one.

As httpcore's `unasync`: an ordered list of substitutions, every one of which must be of use.
"""

import re
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path("_async")
TARGET = Path("_sync")

# Applied in this order, to code and docstrings alike.
RULES = {
    r"\ban `async with`": "a `with`",
    r"\basync (def|for|with)\b": r"\1",
    r"\bawait ": "",
    r"\bStopAsyncIteration\b": "StopIteration",
    r"\bAwaitable\[(\w+)\]": r"\1",
    r"\bAsync(?=[A-Z])": "",
    r"(?<=Service)Async(?=Stub)": "",
    r"\baclos(e|ing)\b": r"clos\1",
    r"\banext\b": "next",
    r"__a(enter|exit|next)__": r"__\1__",
    r"\bimport asyncio\b": "import time",
    r"\basyncio\.sleep\b": "time.sleep",
    r"\bgrpc\.aio\b": "grpc",
    r"\b_async\b": "_sync",
    r"\basync_(?=connection\b|workers\b)": "sync_",
    r"\basynccontextmanager\b": "contextmanager",
    r", for asyncio\b": ", blocking",
    r"\btasks of one event loop\b": "threads",
}
_LEFT = re.compile(r".*(?:async|await|Async).*")


def translate(sources: Mapping[str, str], rules: Mapping[str, str] = RULES) -> dict[str, str]:
    """Translates modules, before they are formatted.

    Args:
        sources: text by name.
        rules: patterns and what takes their place, in order.

    Raises:
        ValueError: a rule was of no use, or something asynchronous is left.
    """
    texts = dict(sources)
    for pattern, replacement in rules.items():
        counts = 0
        for name, text in texts.items():
            texts[name], count = re.subn(pattern, replacement, text)
            counts += count
        if not counts:
            raise ValueError(f"No module has use for the rule {pattern!r}: remove it.")
    for name, text in texts.items():
        if left := _LEFT.search(text):
            raise ValueError(f"{name} is still asynchronous, add a rule: {left.group()}")
    return texts


def generate(package: Path) -> dict[Path, str]:
    """Returns the text of every generated module by its path in the package, not formatted."""
    sources = {path.name: path.read_text() for path in (package / SOURCE).glob("*.py")}
    return {
        TARGET / name: f"# Generated from {SOURCE / name} by `make client`.\n{text}"
        for name, text in translate(sources).items()
    }
