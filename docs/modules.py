"""Lists of modules: what each says of itself in the first sentence of its docstring."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Packages in the order of `modules.md`.
PACKAGES = (
    "rpc",
    "vocabulary",
    "wire",
    "checkpoints",
    "tokenizer_service",
    "model_service/protocol",
    "model_service/front",
    "model_service/engine",
    "lockstep_processors",
    "client/python/lockstep_client",
    "deploy",
    "bench",
    "examples",
)


def table_name(package: str) -> str:
    """Returns the name by which a page asks for the list of a package."""
    return "modules-" + re.sub(r"[^a-z]+", "-", package)


def modules(package: str) -> Iterator[Path]:
    """Finds the modules of a package, sorted, as paths relative to it."""
    folder = ROOT / package
    for path in sorted(folder.rglob("*.py")):
        if path.name != "__init__.py":
            yield path.relative_to(folder)


def modules_list(package: str) -> str:
    """Returns one line per module."""
    return "\n".join(
        f"- `{path.with_suffix('').as_posix()}`: {summary(ROOT / package / path)}"
        for path in modules(package)
    )


def summary(path: Path) -> str:
    """Returns the first paragraph of a module's docstring.

    Raises:
        ValueError: the module has no docstring.
    """
    text = ast.get_docstring(ast.parse(path.read_text()))
    if not text:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring.")
    return " ".join(text.partition("\n\n")[0].split())
