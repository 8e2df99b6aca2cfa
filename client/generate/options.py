"""The keywords of the client's methods, documented with the comments of the schema.

`options_template.py` says which there are; each is documented twice, in the class for
`help()` and after its name for editors.
"""

import ast
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from client.generate.schema import Schema

SOURCE = Path(__file__).with_name("options_template.py")
TARGET = Path("_requests/options.py")

_WIDTH = 99

_SCALARS = {
    Field.TYPE_BOOL: "bool",
    Field.TYPE_FLOAT: "float",
    Field.TYPE_DOUBLE: "float",
    Field.TYPE_INT32: "int",
    Field.TYPE_INT64: "int",
    Field.TYPE_STRING: "str",
}
_MESSAGES = {"TokenIdList": "Ids", "TokenSequence": "Ids", "Duration": "float"}

# How the schema's words read in Python.
_WORDS: Mapping[str, str | Callable[[re.Match[str]], str]] = {
    r"(?<=eos_token_id)s\b": "",
    r"\bEARLY_STOPPING_(FALSE|TRUE)\b": lambda found: found[1].capitalize(),
    r"`(?:EARLY_STOPPING|FINISH_REASON|SEED_MODE)_(\w+)`": lambda found: f'`"{found[1].lower()}"`',
    r"\bFLOAT32\b": "float32",
    r"`(\w+) = (true|false)`": lambda found: f"`{found[1]}={found[2].capitalize()}`",
    r"(?<=means )(true|false)\b": lambda found: found[1].capitalize(),
    r"`UNIMPLEMENTED`": "`FeatureNotImplemented`",
    r"`generation_config\.(?!json)": "`",
}


def generate(schema: Schema) -> dict[Path, str]:
    """Returns the text of the module, by its path in the package.

    Raises:
        ValueError: a keyword has no text, or one of `_WORDS` is of no use.
    """
    for pattern in _WORDS:
        if not any(re.search(pattern, comment) for comment in schema.comments.values()):
            raise ValueError(f"No comment has use for the rule {pattern!r}: remove it.")
    source = SOURCE.read_text()
    tree = ast.parse(source)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    imports = source[source.index('"""\n\n') + 4 : source.index("\n\n\nclass ")]
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    head = f'# Generated from the schema by `make client`.\n"""{summary}"""\n{imports}\n'
    return {TARGET: "\n\n".join([head, *(_class(node, schema) for node in classes)])}


def _class(node: ast.ClassDef, schema: Schema) -> str:
    text, _, fields = (ast.get_docstring(node) or "").partition("Fields: ")
    messages = fields.split(", ") if fields else []
    keywords = dict(_keywords(node, messages, schema))
    if "GenerationConfig" in messages:
        text += "\n\n".join(_python(schema.comments["GenerationConfig"]).split("\n")) + "\n\n"
        ours = dict(_configuration(keywords, schema))
        keywords = {**ours, **{name: keywords[name] for name in keywords.keys() - ours.keys()}}
    paragraphs = [_wrapped(paragraph, "    ") for paragraph in text.strip().split("\n\n")]
    paragraphs[0] = paragraphs[0].removeprefix("    ")
    attributes = [
        _wrapped(f"{name}: {' '.join(text.split())}", " " * 8, " " * 12)
        for name, (_, text) in keywords.items()
    ]
    bases = ", ".join(map(ast.unparse, node.bases))
    lines = [
        f"class {node.name}({bases}, total=False):",
        '    """' + "\n\n".join(paragraphs) + "\n\n    Attributes:",
        *attributes,
        '    """\n',
    ]
    for name, (kind, text) in keywords.items():
        documented = _wrapped(f'"""{text}"""', "    ")
        lines.append(f"    {name}: {kind}\n{documented}")
    return "\n".join(lines) + "\n"


def _keywords(
    node: ast.ClassDef, messages: list[str], schema: Schema
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields name, type and text of what the template has."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            name = ast.unparse(statement.target)
            own = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                own = " ".join(str(following.value.value).split())
            if " " not in own:
                own = _field_text(own or name, messages, schema)
            yield name, (ast.unparse(statement.annotation), own)


def _configuration(
    given: dict[str, tuple[str, str]], schema: Schema
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields name, type and text of every field of the configuration, in the schema's order."""
    for field in schema.fields["GenerationConfig"]:
        text = _python(schema.comments[f"GenerationConfig.{field.name}"])
        message = field.type_name.rpartition(".")[2]
        if message and message not in _MESSAGES:
            text = " ".join([text, *_parts(message, schema)])
        name = field.name if field.name in given else _python(field.name)
        kind, _ = given.get(name) or (_type(field), "")
        yield name, (kind, text)


def _parts(name: str, schema: Schema) -> Iterator[str]:
    """Yields what the schema says of the parts of a message or the values of an enumeration."""
    for part in schema.parts(name):
        if not part.endswith("_UNSPECIFIED"):
            word = _python(f"`{part.rpartition('.')[2]}`")
            yield f"{word}: {_python(schema.comments[part])}"


def _type(field: Field) -> str:
    message = field.type_name.rpartition(".")[2]
    kind = _SCALARS.get(field.type) or _MESSAGES.get(message) or "Mapping[str, Any]"
    if field.label != Field.LABEL_REPEATED:
        return kind
    return "Ids" if kind == "int" else f"Sequence[{kind}]"


def _field_text(name: str, messages: list[str], schema: Schema) -> str:
    for message in messages:
        for field in schema.fields[message]:
            if field.name in (name, f"{name}s"):
                return _python(schema.comments[f"{message}.{field.name}"])
    raise ValueError(f"Nothing says what the keyword {name} means: no field of {messages} does.")


def _python(text: str) -> str:
    for pattern, word in _WORDS.items():
        text = re.sub(pattern, word, text)
    return text


def _wrapped(text: str, indent: str, hanging: str | None = None) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
