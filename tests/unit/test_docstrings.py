"""What docstrings promise: every tensor with shape and type, every error that a function raises."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.modules import PACKAGES, modules

ROOT = Path(__file__).parents[2]

ARRAY = re.compile(r"\b(\w*Tensor|\w*ndarray|NDArray|Array)\b")
SHAPE = re.compile(r"`\[[^`]*\]`")
TYPE = re.compile(r"float\d|int\d|\bbool\b|\bd?type[ds]?\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(body: list[ast.stmt], name: str) -> Iterator[tuple[str, Function]]:
    """Yields functions and methods whose names, and whose classes' names, are public.

    RPCs are described in the schema, and overloads by what they overload.
    """
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{name}.{node.name}")
        elif isinstance(node, Function) and is_public(node):
            yield f"{name}.{node.name}", node


def is_public(function: Function) -> bool:
    overload = "overload" in map(ast.unparse, function.decorator_list)
    return not overload and re.match("[a-z]|__call__", function.name) is not None


def functions(package: str) -> Iterator[tuple[str, Function]]:
    """Yields the public functions of a package. A command's docstring is its help."""
    for path in modules(package):
        if path.parts[0] == "_cli":
            continue
        tree = ast.parse((ROOT / package / path).read_text())
        yield from public_functions(tree.body, path.with_suffix("").as_posix())


def annotations(function: Function) -> str:
    parameters = function.args
    nodes = [each.annotation for each in (*parameters.posonlyargs, *parameters.args)]
    nodes += [each.annotation for each in parameters.kwonlyargs]
    return " ".join(ast.unparse(node) for node in (*nodes, function.returns) if node is not None)


def raises(function: Function) -> bool:
    """Says whether a function raises something itself. A failed assertion is a bug, not a case."""
    rest: list[ast.AST] = [*function.body]
    while rest:
        node = rest.pop()
        if isinstance(node, Function | ast.Lambda | ast.ClassDef):
            continue
        raised = ast.unparse(node.exc) if isinstance(node, ast.Raise) and node.exc else ""
        if raised and not raised.startswith("AssertionError"):
            return True
        rest.extend(ast.iter_child_nodes(node))
    return False


def docstring(function: Function) -> str:
    return ast.get_docstring(function) or ""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_tensor_has_a_shape_and_a_type(package):
    texts = {
        name: docstring(function)
        for name, function in functions(package)
        if ARRAY.search(annotations(function))
    }
    assert [name for name, text in texts.items() if not SHAPE.search(text)] == []
    assert [name for name, text in texts.items() if not TYPE.search(text)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_error_that_a_function_raises_is_documented(package):
    texts = {name: docstring(found) for name, found in functions(package) if raises(found)}
    assert [name for name, text in texts.items() if "Raises:" not in text] == []
