"""The keywords of the TypeScript client: those of the Python client, in camelCase.

So both have the same names and texts, and a field that the schema gets is a keyword of both.
"""

import ast
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from client.generate.schema import Schema
from client.generate.words import camel

TARGET = Path("src/options.ts")

_WIDTH = 96

# Python's types in TypeScript. A type that is only Python's is empty, and so is a keyword that
# has no other.
_TYPES = {
    "None": "",
    "Any": "unknown",
    "bool": "boolean",
    "int": "number",
    "float": "number",
    "str": "string",
}
# Classes of keywords that are only Python's, and what they extend: `**batch` gives the first ones.
_ONLY_PYTHON = {"PromptOptions": "GenerationOptions"}
# A keyword that is only Python's: in TypeScript an object of keywords is spread.
_SPREAD = "generation_config"

# Keywords that have another type here, with their text.
_OWN = {
    "progress": (
        "((numDone: number, numRows: number) => void)",
        "Called with how many rows are done, whenever some are, and how many there are.",
    ),
}

_IMPORTED = {
    "ScoreSelection": "./values/selection.js",
    "SessionRetention": "./values/sessionRetention.js",
    "VocabularyRef": "./values/vocabularyRef.js",
}
_ALIASES = {
    "Ids": "ArrayLike<number | bigint>",
    "OffsetUnit": '"bytes" | "code_points" | "utf16"',
    "PaddingSide": '"left" | "right"',
    "PaddingStrategy": 'boolean | "longest" | "max_length"',
}

# How Python's words read in TypeScript.
_WORDS: Mapping[str, str | Callable[[re.Match[str]], str]] = {
    r"(?<=`)(\w+)=(?=[\w\"]+`)": r"\1: ",
    r"\b(True|False)\b": lambda found: found[1].lower(),
    r"(?<=`)[a-z]\w+(?=[`:])": lambda found: camel(found[0]),
    r"`FeatureNotImplemented`": "`NOT_IMPLEMENTED`",
}


def generate(options: str, schema: Schema) -> dict[Path, str]:
    """Returns the text of the module, by its path in the package.

    Args:
        options: text of the module with Python's keywords.
        schema: knows which whole numbers may exceed 2^53.

    Raises:
        ValueError: nothing says what a type is in TypeScript.
    """
    classes = [
        node
        for node in ast.parse(options).body
        if isinstance(node, ast.ClassDef) and node.name not in _ONLY_PYTHON
    ]
    large = {
        f.name for fields in schema.fields.values() for f in fields if f.type == Field.TYPE_INT64
    }
    names = {node.name for node in classes}
    parts = [
        "// Generated from the schema and the keywords of the Python client by `make client`.\n",
        "".join(f'import type {{ {name} }} from "{path}";\n' for name, path in _IMPORTED.items()),
        "".join(f"export type {name} = {kind};\n" for name, kind in _ALIASES.items()),
        *("\n".join(_lines(node, names, large)) for node in classes),
    ]
    return {TARGET: "\n".join(parts)}


def _lines(node: ast.ClassDef, names: set[str], large: set[str]) -> Iterator[str]:
    """Yields an interface, and the names of its keywords as a value."""
    keywords = list(_keywords(node, large))
    bases = [base for each in node.bases if (base := _named(ast.unparse(each))) in names]
    extends = f" extends {', '.join(bases)}" if bases else ""
    inherited = "".join(f"  ...{base},\n" for base in bases)
    summary, _, _ = _named(ast.get_docstring(node) or "").partition("\n\nAttributes:")
    yield from _comment(_typescript(summary), "")
    yield f"export interface {node.name}{extends} {{"
    for name, kind, text in keywords:
        yield from _comment(text, "  ")
        yield f"  {name}?: {kind} | undefined;"
    yield f"}}\n\n/** The names of `{node.name}`. */"
    listed = _wrapped(", ".join(f'"{name}"' for name, _, _ in keywords) + ",", "  ")
    yield f"export const {node.name}: readonly string[] = [\n{inherited}{listed}\n];\n"


def _keywords(node: ast.ClassDef, large: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yields name, type and text of the keywords of a class."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            name = ast.unparse(statement.target)
            kind = _type(statement.annotation)
            if name in large:
                kind = re.sub(r"\bnumber\b", "number | bigint", kind)
                kind = kind.replace("readonly number | bigint[]", "readonly (number | bigint)[]")
            assert isinstance(following, ast.Expr), (
                "The generated module says what a keyword means."
            )
            text = " ".join(str(ast.literal_eval(following.value)).split())
            kind, text = _OWN.get(name, (kind, text))
            if kind and name != _SPREAD:
                yield camel(name), kind, _typescript(text)


def _type(annotation: ast.expr) -> str:
    match annotation:
        case ast.BinOp(left=left, right=right):
            return " | ".join(filter(None, (_type(left), _type(right))))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            return ast.unparse(values).strip("()").replace("'", '"').replace(", ", " | ")
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=items)):
            return f"readonly [{', '.join(map(_type, items))}]"
        case ast.Subscript(value=ast.Name(id="Mapping"), slice=ast.Tuple(elts=[key, value])):
            if isinstance(key, ast.Subscript):  # objects of JavaScript have no such keys
                return ""
            return f"Readonly<Record<{_type(key)}, {_type(value)}>>"
        case ast.Subscript(value=ast.Name(id="Sequence" | "Iterable"), slice=item):
            kind = _type(item)
            return f"readonly ({kind})[]" if " " in kind else f"readonly {kind}[]"
        case ast.Constant(value=None):
            return ""
        case ast.Name(id=name) if name in _IMPORTED or name in _ALIASES:
            return name
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
    raise ValueError(f"Say in {__file__} what {ast.unparse(annotation)} is in TypeScript.")


def _comment(text: str, indent: str) -> list[str]:
    line = f"{indent}/** {text} */"
    if "\n" not in text and len(line) <= _WIDTH:
        return [line]
    prefix = f"{indent} * "
    paragraphs = [_wrapped(" ".join(part.split()), prefix) for part in text.split("\n\n")]
    return [f"{indent}/**", f"\n{prefix.rstrip()}\n".join(paragraphs), f"{indent} */"]


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _named(text: str) -> str:
    """Names the bases that there are in TypeScript."""
    for name, base in _ONLY_PYTHON.items():
        text = text.replace(name, base)
    return text


def _typescript(text: str) -> str:
    for pattern, word in _WORDS.items():
        text = re.sub(pattern, word, text)
    return text
