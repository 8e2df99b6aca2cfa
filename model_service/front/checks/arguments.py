"""Arguments as requests write them: JSON, and the schemas that it has to match."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NoReturn, Self

import jsonschema

TOKEN_ID = "token-id"
"""Format of values that are ids of the vocabulary."""

# A number written with a fraction is not an integer, as in every language with both.
_Validator: Any = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)

_DESCRIPTIONS = {
    "type": "must be of type {}",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be above {}",
    "exclusiveMaximum": "must be below {}",
    "minItems": "must have at least {} entries",
    "maxItems": "must have at most {} entries",
    "enum": "must be one of {}",
}


class NotAcceptedError(ValueError):
    """Text that is not JSON, or that other languages would read differently. Says why."""


def parse(text: str) -> Any:
    """Reads JSON, strictly.

    Raises:
        NotAcceptedError: it is not JSON, has a name twice in one object, or a number that is
            not finite.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except NotAcceptedError:
        raise
    except (ValueError, RecursionError):
        raise NotAcceptedError("must be JSON") from None


class ArgumentsSchema:
    """The JSON schema of the arguments of one processor.

    Attributes:
        defaults: arguments that may be left out, with their values.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Takes the schema, that of an object."""
        self._schema = schema
        self._validator = _Validator(schema)
        self.defaults: dict[str, Any] = {
            name: field["default"]
            for name, field in schema.get("properties", {}).items()
            if "default" in field
        }

    @classmethod
    @cache
    def of(cls, schema_json: str) -> Self:
        """Reads a schema, once."""
        return cls(json.loads(schema_json))

    def problems(self, arguments: Any) -> Iterator[tuple[str, str]]:
        """Yields the path and the description of everything that the schema does not accept."""
        for error in self._validator.iter_errors(arguments):
            yield _path(error.absolute_path), _describe(error)

    def token_ids(self, arguments: Any) -> Iterator[tuple[str, list[int]]]:
        """Yields the path of every token id, of lists of them as one. `arguments` are accepted."""
        return self._ids(arguments, self._schema)

    def _ids(self, value: Any, schema: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
        if "$ref" in schema:
            schema = self._schema["$defs"][schema["$ref"].rpartition("/")[2]]
        for option in schema.get("anyOf", ()):
            yield from self._ids(value, option)
        if schema.get("format") == TOKEN_ID and isinstance(value, int):
            yield "", [value]
        elif isinstance(value, list) and schema.get("items", {}).get("format") == TOKEN_ID:
            yield "", value
        elif isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                for where, ids in self._ids(item, schema["items"]):
                    yield f"[{index}]{where}", ids
        elif isinstance(value, dict):
            for name, item in value.items():
                inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
                if isinstance(inner, Mapping):
                    for where, ids in self._ids(item, inner):
                        yield f".{name}{where}", ids


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise NotAcceptedError("must not have a name twice in one object")
    return dict(pairs)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotAcceptedError("must have finite numbers only")
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise NotAcceptedError("must have finite numbers only")


def _path(parts: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _describe(error: jsonschema.ValidationError) -> str:
    """Says what the schema wants there, and nothing of what the request has."""
    wanted = error.validator_value
    if error.validator == "required":
        return f"must have {', '.join(name for name in wanted if name not in error.instance)}"
    if error.validator == "additionalProperties":
        allowed = ", ".join(error.schema.get("properties", {})) or "none"
        return f"has an argument that does not exist; there are: {allowed}"
    template = _DESCRIPTIONS.get(error.validator)
    return template.format(wanted) if template else f"must match {error.validator} {wanted}"
