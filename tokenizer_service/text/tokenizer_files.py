"""The files that a tokenizer is made of, read and checked once at start.

Only data is read: `tokenizer.json`, `tokenizer_config.json`,
`special_tokens_map.json` and the chat templates. Anything else in the folder,
code above all, is left alone.
"""

import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vocabulary import AddedToken, Role

ROLES: tuple[Role, ...] = get_args(Role)

SAVE_AGAIN = (
    "Save the tokenizer again with transformers: "
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
)
"""What to do about files that do not fit together."""

# What Hugging Face writes if the longest sequence is unknown.
_UNKNOWN_LENGTH = 2**31


class TokenizerFilesError(Exception):
    """The folder holds no tokenizer that can be served; the text says what to do."""


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the folder says.

    Attributes:
        tokenizer_json: the bytes of `tokenizer.json`.
        config: `tokenizer_config.json`; where it lists no added tokens, with what
            `special_tokens_map.json` says in its place.
        chat_templates: the source of each template; the usual one is `default`.
    """

    tokenizer_json: bytes
    config: Mapping[str, Any]
    chat_templates: Mapping[str, str]

    @property
    def roles(self) -> dict[Role, AddedToken]:
        """The tokens that the configuration names by role."""
        named = {role: _as_token(self.config.get(f"{role}_token")) for role in ROLES}
        return {role: token for role, token in named.items() if token is not None}

    @property
    def control_tokens(self) -> Iterator[AddedToken]:
        """Tokens that the configuration declares to be control tokens."""
        yield from self.roles.values()
        for key in ("additional_special_tokens", "extra_special_tokens"):
            value = self.config.get(key) or ()
            for entry in value.values() if isinstance(value, dict) else value:
                if (token := _as_token(entry)) is not None:
                    yield token
        for _, token in self.declared_ids:
            if token.special:
                yield token

    @property
    def declared_ids(self) -> list[tuple[int, AddedToken]]:
        """The added tokens that the configuration lists with their ids, in order of id.

        Raises:
            TokenizerFilesError: an entry is not a token with an id.
        """
        named = {token.content for token in self.roles.values()}
        entries = self.config.get("added_tokens_decoder") or {}
        try:
            declared = [(int(key), _declared_token(entry, named)) for key, entry in entries.items()]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise TokenizerFilesError(
                "tokenizer_config.json has an added_tokens_decoder that is not an object of "
                f"tokens by id. {SAVE_AGAIN}"
            ) from None
        return sorted(declared, key=lambda entry: entry[0])

    @property
    def model_max_length(self) -> int | None:
        """Longest sequence the model was made for, None when unknown."""
        length = self.config.get("model_max_length")
        if not isinstance(length, int | float) or not 1 <= length < _UNKNOWN_LENGTH:
            return None
        return int(length)

    @property
    def cleans_up_spaces(self) -> bool:
        """Whether the configuration asks for `clean_up_tokenization_spaces`."""
        return bool(self.config.get("clean_up_tokenization_spaces", False))


def read(folder: Path) -> TokenizerFiles:
    """Reads a folder in the layout of `save_pretrained`.

    Raises:
        TokenizerFilesError: a file is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TokenizerFilesError(f"{folder} has no tokenizer.json. {SAVE_AGAIN}")
    config = _read_object(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # as `from_pretrained`: an older layout
        config |= _read_object(folder / "special_tokens_map.json")
    return TokenizerFiles(
        tokenizer_json=path.read_bytes(),
        config=config,
        chat_templates=_chat_templates(folder, config),
    )


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Template files win over the configuration, as in `from_pretrained`."""
    templates = {}
    if (path := folder / "chat_template.jinja").is_file():
        templates["default"] = path.read_text("utf-8")
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text("utf-8")
    if templates:
        return templates
    match config.get("chat_template"):
        case str(source):
            return {"default": source}
        case list(named):
            return {entry["name"]: entry["template"] for entry in named}
        case dict(by_name):
            return dict(by_name)
    return {}


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise TokenizerFilesError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise TokenizerFilesError(f"{path} does not hold a JSON object.")
    return value


def _as_token(entry: object) -> AddedToken | None:
    """Reads a token that is given as a string or as the members of an `AddedToken`."""
    match entry:
        case str(content) if content:
            return AddedToken(content, special=True)
        case {"content": str(content), **members}:
            flags = ("special", "single_word", "lstrip", "rstrip", "normalized")
            given = {flag: bool(members[flag]) for flag in flags if flag in members}
            return AddedToken(content, **({"special": True} | given))
    return None


def _declared_token(entry: Mapping[str, Any], named: Container[str]) -> AddedToken:
    """Reads an entry of `added_tokens_decoder`, with the library's defaults.

    Args:
        entry: the members of an `AddedToken`.
        named: texts of the tokens that have a role, which are special whatever they say.
    """
    content = str(entry["content"])
    special = bool(entry.get("special", False)) or content in named
    return AddedToken(
        content,
        special=special,
        single_word=bool(entry.get("single_word", False)),
        lstrip=bool(entry.get("lstrip", False)),
        rstrip=bool(entry.get("rstrip", False)),
        normalized=bool(entry.get("normalized", not special)),
    )
