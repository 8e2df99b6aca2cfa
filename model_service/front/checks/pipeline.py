"""Explicit pipelines: the processors that a request names, with their arguments, in its order.

Arguments are checked against the schema that `ListLogitsProcessors` publishes,
so what a caller reads there is what holds. Every problem is noted with the path
of the value it is about.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from lockstep.v1 import generation_pb2

from model_service.front.checks.arguments import ArgumentsSchema, NotAcceptedError, parse
from model_service.front.checks.processor_catalog import Catalog
from model_service.protocol.parameters import PARAMETERS, SAMPLING, GenerationConfig
from model_service.protocol.processor_arguments import ProcessorSpec, decode
from rpc.errors import MAX_VIOLATIONS
from wire.token_ids import NONE, check_token_ids
from wire.violations import Violations

MAX_ARGUMENTS_BYTES = 64 * 2**10
"""Most bytes of the arguments of all processors of a request: checking takes time for each."""

MAX_COMPARED_VALUES = 4096
"""Most values of all arguments that are compared with a JSON schema: about 10 microseconds each."""

_PLACE = re.compile(r" - at `\$([^`]*)`$")
"""How msgspec says where something is wrong."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pipeline is checked against.

    Attributes:
        catalog: the processors on offer.
        config: the configuration that it is part of.
        lenient: whether processors without effect are left out instead of refused.
        vocabulary_size: ids of the request's revision.
        without_rows: the ids among them without a row in the model.
    """

    catalog: Catalog
    config: GenerationConfig
    lenient: bool
    vocabulary_size: int
    without_rows: range = NONE


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
    size = sum(len(spec.arguments_json.encode()) for spec in specs)
    if size > MAX_ARGUMENTS_BYTES:
        violations.add(
            path, f"has {size} bytes of arguments in total; the limit is {MAX_ARGUMENTS_BYTES}"
        )
        return ()
    num_values = sum(spec.arguments_json.count(",") + 1 for spec in specs)
    read: list[ProcessorSpec] = []
    for index, spec in enumerate(specs):
        at = f"{path}[{index}]"
        if spec.name not in surroundings.catalog:
            violations.add(f"{at}.name", "is not a name that ListLogitsProcessors returns")
        elif _has_effect(spec.name, surroundings, violations, at):
            _check_repeat(spec.name, read, surroundings, violations, at)
            arguments = _read_arguments(
                spec,
                surroundings,
                violations,
                f"{at}.arguments_json",
                few=num_values <= MAX_COMPARED_VALUES,
            )
            read.append(ProcessorSpec(spec.name, arguments))
    return tuple(read)


def _has_effect(name: str, surroundings: Surroundings, violations: Violations, path: str) -> bool:
    """Whether a processor does something here. One that does not is noted, unless lenient."""
    if name in PARAMETERS:
        needs = PARAMETERS[name].needs
    else:
        needs = (SAMPLING,) if surroundings.catalog[name].warper else ()
    unmet = next((need for need in needs if not need.is_met(surroundings.config)), None)
    if unmet and not surroundings.lenient:
        condition = unmet.condition
        violations.add(path, f"has no effect without {condition}; leave it out, or set lenient")
    return unmet is None


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
        violations.add(f"{path}.name", "is already given; this processor can be given only once")


def _read_arguments(
    spec: generation_pb2.LogitsProcessorSpec,
    surroundings: Surroundings,
    violations: Violations,
    path: str,
    *,
    few: bool,
) -> str:
    """Returns the arguments with their defaults, as JSON.

    `few` says whether there is time to compare each with the schema.
    """
    schema = ArgumentsSchema.of(surroundings.catalog[spec.name].arguments_schema_json)
    try:
        arguments = parse(spec.arguments_json or "{}")
    except NotAcceptedError as error:
        violations.add(path, str(error))
        return "{}"
    problems = list(_problems(spec, arguments, schema, few=few))
    for where, description in problems:
        violations.add(path + where, description)
    if problems:
        return "{}"
    for where, ids in schema.token_ids(arguments):
        check_token_ids(
            path + where,
            [ids],
            surroundings.vocabulary_size,
            surroundings.without_rows,
            one_row=True,
        )
    return json.dumps(schema.defaults | arguments)


def _problems(
    spec: generation_pb2.LogitsProcessorSpec,
    arguments: Any,
    schema: ArgumentsSchema,
    *,
    few: bool,
) -> Iterator[tuple[str, str]]:
    """Yields the path and the description of each problem. Neither holds a value of the request."""
    wrong = None
    if spec.name in PARAMETERS:  # typed here as well, which is many times faster
        try:
            decode(spec.arguments_json, PARAMETERS[spec.name].arguments)
            return
        except msgspec.DecodeError as error:
            wrong = str(error)
    if not few:
        yield _summary(wrong)
        return
    found = list(islice(schema.problems(arguments), MAX_VIOLATIONS))
    yield from found
    if wrong and not found:  # what a schema cannot say
        yield "", wrong


def _summary(wrong: str | None) -> tuple[str, str]:
    """Returns one problem of arguments that are too many to be looked at one by one.

    Args:
        wrong: what msgspec says; None where it does not know the processor.
    """
    if wrong is None:
        return (
            "",
            f"and the other processors' arguments have more than {MAX_COMPARED_VALUES} values",
        )
    place = _PLACE.search(wrong)
    return place[1] if place else "", "is not what the schema in ListLogitsProcessors accepts"
