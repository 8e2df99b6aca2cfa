"""Explicit pipelines: the processors that a request names, with their arguments, in its order.

Arguments are checked against the schema that `ListLogitsProcessors` publishes,
so what a caller reads there is what holds. Every problem is noted with the path
of the value it is about.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, NoReturn

import jsonschema
import msgspec
from lockstep.v1 import generation_pb2

from model_service.active_processors import NEED_ENDS
from model_service.generation import ProcessorSpec
from model_service.processor_arguments import BY_NAME, decode
from model_service.requests.processor_catalog import Catalog
from model_service.requests.token_ids import check_token_ids
from model_service.requests.violations import MAX_REPORTED, Violations

MAX_PROCESSORS = 64
MAX_ARGUMENTS_BYTES = 64 * 2**10
"""Most bytes of the arguments of all processors of a request: checking takes time for each."""

TOKEN_ID = "token-id"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pipeline is checked against.

    Attributes:
        catalog: the processors on offer.
        do_sample: whether tokens are drawn.
        lenient: whether processors without effect are left out instead of refused.
        has_ends: whether there are end-of-sequence ids.
        vocabulary_size: ids of the request's revision.
    """

    catalog: Catalog
    do_sample: bool
    lenient: bool
    has_ends: bool
    vocabulary_size: int


def read_pipeline(
    specs: Sequence[generation_pb2.LogitsProcessorSpec],
    surroundings: Surroundings,
    violations: Violations,
    path: str,
) -> tuple[ProcessorSpec, ...]:
    """Checks a pipeline and fills in the defaults of its arguments.

    Args:
        specs: the field `processors`.
        surroundings: what it is checked against.
        violations: what is wrong is noted here; the result is then meaningless.
        path: of the field in the request.

    Raises:
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    if len(specs) > MAX_PROCESSORS:
        violations.add(path, f"has {len(specs)} processors; the limit is {MAX_PROCESSORS}")
        return ()
    size = sum(len(spec.arguments_json.encode()) for spec in specs)
    if size > MAX_ARGUMENTS_BYTES:
        violations.add(
            path, f"has {size} bytes of arguments in all; the limit is {MAX_ARGUMENTS_BYTES}"
        )
        return ()
    read: list[ProcessorSpec] = []
    for index, spec in enumerate(specs):
        at = f"{path}[{index}]"
        if spec.name not in surroundings.catalog:
            violations.add(f"{at}.name", "is none of those that ListLogitsProcessors returns")
        elif _has_effect(spec.name, surroundings, violations, at):
            _check_repeat(spec.name, read, surroundings, violations, at)
            arguments = _read_arguments(spec, surroundings, violations, f"{at}.arguments_json")
            read.append(ProcessorSpec(spec.name, arguments))
    return tuple(read)


def _has_effect(name: str, surroundings: Surroundings, violations: Violations, path: str) -> bool:
    """Whether a processor does something here. One that does not is noted, unless lenient."""
    if surroundings.catalog[name].warper and not surroundings.do_sample:
        missing = "do_sample = true"
    elif name in NEED_ENDS and not surroundings.has_ends:
        missing = "eos_token_ids"
    else:
        return True
    if not surroundings.lenient:
        violations.add(path, f"has no effect without {missing}; leave it out, or set lenient")
    return False


def _check_repeat(
    name: str,
    before: list[ProcessorSpec],
    surroundings: Surroundings,
    violations: Violations,
    path: str,
) -> None:
    if surroundings.catalog[name].repeatable:
        return
    if any(spec.name == name for spec in before):
        violations.add(f"{path}.name", "is given before; this processor can be given once")


def _read_arguments(
    spec: generation_pb2.LogitsProcessorSpec,
    surroundings: Surroundings,
    violations: Violations,
    path: str,
) -> str:
    """Returns the arguments with their defaults, as JSON."""
    schema = _schema(surroundings.catalog[spec.name].arguments_schema_json)
    try:
        arguments = _parse(spec.arguments_json or "{}")
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _NotAccepted) else "must be JSON"
        violations.add(path, reason)
        return "{}"
    problems = list(_problems(spec, arguments, schema))
    for where, description in problems:
        violations.add(path + where, description)
    if problems:
        return "{}"
    for where, ids in _token_ids(arguments, schema, schema):
        check_token_ids(path + where, [ids], surroundings.vocabulary_size)
    defaults = {
        name: field["default"]
        for name, field in schema.get("properties", {}).items()
        if "default" in field
    }
    return json.dumps(defaults | arguments)


class _NotAccepted(ValueError):
    """JSON that Python would read and other languages would not, or not alike."""


def _parse(text: str) -> Any:
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_float=_finite,
        parse_constant=_refuse_constant,
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _NotAccepted("must not have a name twice in one object")
    return dict(pairs)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NotAccepted("must have finite numbers only")
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise _NotAccepted("must have finite numbers only")


def _problems(
    spec: generation_pb2.LogitsProcessorSpec, arguments: Any, schema: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yields the path and the description of each problem. Neither holds a value of the request."""
    wrong = None
    if spec.name in BY_NAME:  # typed here as well, which is many times faster
        try:
            decode(spec.arguments_json, BY_NAME[spec.name])
            return
        except msgspec.DecodeError as error:
            wrong = str(error)
    validator = _validator(json.dumps(schema))
    problems = list(islice(validator.iter_errors(arguments), MAX_REPORTED))
    for problem in problems:
        yield _path(problem.absolute_path), _describe(problem)
    if wrong and not problems:  # what a schema cannot say
        yield "", wrong


def _path(parts: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _describe(error: jsonschema.ValidationError) -> str:
    """Says what the schema wants there."""
    wanted = error.validator_value
    if error.validator == "required":
        missing = [name for name in wanted if name not in error.instance]
        return f"must have {', '.join(missing)}"
    if error.validator == "additionalProperties":
        allowed = ", ".join(error.schema.get("properties", {})) or "none"
        return f"has an argument that does not exist; there are: {allowed}"
    template = _DESCRIPTIONS.get(error.validator)
    return template.format(wanted) if template else f"must match {error.validator} {wanted}"


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


def _token_ids(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]
) -> Iterator[tuple[str, list[int]]]:
    """Yields the path of every value that the schema calls a token id, lists of them as one."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if schema.get("format") == TOKEN_ID and isinstance(value, int):
        yield "", [value]
    for option in schema.get("anyOf", ()):
        yield from _token_ids(value, option, root)
    if isinstance(value, list) and "items" in schema:
        if schema["items"].get("format") == TOKEN_ID:
            yield "", value
            return
        for index, item in enumerate(value):
            for where, ids in _token_ids(item, schema["items"], root):
                yield f"[{index}]{where}", ids
    if isinstance(value, dict):
        others = schema.get("additionalProperties")
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, others)
            if isinstance(inner, Mapping):
                for where, ids in _token_ids(item, inner, root):
                    yield f".{name}{where}", ids


@cache
def _schema(schema_json: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_json)
    return schema


# A number written with a fraction is no integer, as in every language with both.
_Validator: Any = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


@cache
def _validator(schema_json: str) -> Any:
    return _Validator(json.loads(schema_json))
