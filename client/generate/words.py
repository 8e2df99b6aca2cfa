"""The words of a caller in the TypeScript client: the tables of the Python client, in its words.

So an error names what the caller gave in both, whichever field of a request has it.
"""

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path

TARGET = Path("src/words.ts")

KEYWORDS = Path("_transport/keywords.py")
HUGGING_FACE = Path("_requests/hugging_face.py")

# Reasons that name what only Python has.
_OWN = {"inputs": "give prompts"}


def generate(package: Path) -> dict[Path, str]:
    """Returns the text of the module, by its path in the TypeScript package.

    Args:
        package: the Python client, whose modules are read and not imported: a part of them is
            generated too.
    """
    keywords, hugging_face = (_tables(package / each) for each in (KEYWORDS, HUGGING_FACE))
    elsewhere = {**hugging_face["HARMLESS"], **hugging_face["REFUSED"], **_OWN}
    parts = [
        "// Generated from the tables of the Python client by `make client`.\n",
        *_pairs(
            "PATHS",
            "Where a path of fields begins so, as a pattern, what a caller says in its place.",
            ((path, _replacement(word)) for path, word in keywords["_PATHS"].items()),
        ),
        *_pairs(
            "ADVICE",
            "What the services advise, as a pattern, and how it is done here.",
            ((text, typescript(_replacement(word))) for text, word in keywords["_WORDS"].items()),
        ),
        *_pairs(
            "ELSEWHERE",
            "Options of other libraries, and why they are not taken or what to give instead.",
            ((camel(name), typescript(reason)) for name, reason in elsewhere.items()),
        ),
    ]
    return {TARGET: "\n".join(parts)}


def typescript(text: str) -> str:
    """Says in TypeScript what is said in Python: names in camelCase, `name: value`."""
    text = re.sub(r"ScoreSelection\((.*?)\)", r"{ \1 }", text)
    text = re.sub(r"(?<=\w)=(?=[\w.\"{])", ": ", text)
    text = re.sub(r"\b(True|False)\b", lambda found: found[1].lower(), text)
    return re.sub(r"\b[a-z]+(?:_[a-z0-9]+)+\b", lambda found: camel(found[0]), text)


def camel(name: str) -> str:
    """Returns a name in camelCase."""
    return re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda found: found[1].upper(), name)


def _tables(path: Path) -> dict[str, dict[str, str]]:
    """Returns the dictionaries of a module by their names, of its own functions' results too."""
    module = ast.parse(path.read_text())
    names: dict[str, str] = {}
    tables: dict[str, dict[str, str]] = {}
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                names[name] = text
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as table):
                tables[name] = dict(_entries(table, names))
    return tables


def _entries(table: ast.Dict, names: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Yields keys and values; `**_all(reason, ...)` is the same reason for several names."""
    for key, value in zip(table.keys, table.values, strict=True):
        match key, value:
            case None, ast.Call(args=[reason, *several]):
                text = names[reason.id] if isinstance(reason, ast.Name) else _text(reason, names)
                yield from ((_text(each, names), text) for each in several)
            case ast.expr(), _:
                yield _text(key, names), _text(value, names)


def _text(node: ast.expr, names: dict[str, str]) -> str:
    text = names[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)
    assert isinstance(text, str), f"{ast.unparse(node)} is not a text."
    return text


def _replacement(word: str) -> str:
    """Writes the groups of a replacement as JavaScript does."""
    return re.sub(r"\\(\d)", r"$\1", word.replace(r"\g<0>", "$&"))


def _pairs(name: str, text: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"  [{json.dumps(key)}, {json.dumps(value)}]," for key, value in pairs]
    head = f"/** {text} */\nexport const {name}: readonly (readonly [string, string])[] = ["
    return ["\n".join([head, *lines, "];\n"])]
