"""How a processor is described to callers: name, purpose and the schema of its arguments."""

import inspect
import json
from typing import Any

import msgspec


class ProcessorDescription(msgspec.Struct, frozen=True):
    """One processor. Made where its arguments are defined, read where requests are checked."""

    name: str
    description: str
    arguments_schema_json: str
    """JSON schema of its arguments, an object."""

    warper: bool = False
    """Whether it is applied only when sampling."""

    repeatable: bool = False
    """Whether a pipeline may have it more than once."""


def describe(
    name: str, arguments: type[msgspec.Struct], *, warper: bool = False, repeatable: bool = False
) -> ProcessorDescription:
    """Describes a processor by the class of its arguments.

    Args:
        name: its name.
        arguments: whose docstring says what the processor does.
        warper: whether it is applied only when sampling.
        repeatable: whether a pipeline may have it more than once.

    Raises:
        TypeError: a field has a type that has no JSON schema.
    """
    return ProcessorDescription(
        name,
        description=inspect.cleandoc(arguments.__doc__ or "").partition("\n\n")[0],
        arguments_schema_json=json.dumps(arguments_schema(arguments)),
        warper=warper,
        repeatable=repeatable,
    )


def arguments_schema(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns the JSON schema of a class, with those of the classes it is made of inside."""
    (reference,), definitions = msgspec.json.schema_components([arguments])
    own = definitions.pop(reference["$ref"].rpartition("/")[2])
    for schema in (own, *definitions.values()):
        schema.pop("title", None)
        schema.pop("description", None)
    return {**own, "$defs": definitions} if definitions else own
