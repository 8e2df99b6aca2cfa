"""The fields of a request's configuration, by their table: read, checked, and written back.

How many ids and texts there may be stands in the schema, and was counted before a message came
here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import generation_pb2

from model_service.front.checks.arguments import ArgumentsSchema
from model_service.protocol.number import Number, as_written
from model_service.protocol.parameter import Choice, IdList, Kind, Parameter
from model_service.protocol.parameters import CONFIG_PARAMETERS, PARAMETERS, GenerationConfig
from model_service.protocol.processor_arguments import BIAS, DECAY_FACTOR, RUN_BIAS, Arguments
from model_service.protocol.processor_description import arguments_schema
from rpc.errors import NotImplemented_
from wire import times
from wire.violations import Violations

_FIELDS: Any = generation_pb2.GenerationConfig.DESCRIPTOR.fields_by_name

SECONDS = Number(0, 1e9, above_low=True, hint=f"seconds, with {times.NANOS}")

MAX_RUN_IDS = 1024
"""Most ids of a stop sequence or of bad words."""


@dataclass(frozen=True, slots=True)
class FieldLimits:
    """Bounds that depend on the server and the model.

    Attributes:
        vocabulary_size: most ids of a set of them.
        context_length: most ids of a text.
        max_return_sequences: most sequences per prompt.
    """

    vocabulary_size: int
    context_length: int
    max_return_sequences: int


def read_fields(
    message: generation_pb2.GenerationConfig,
    violations: Violations,
    path: str,
    limits: FieldLimits,
) -> dict[str, Any]:
    """Reads the fields that are set, by name, but for `processors`.

    Args:
        message: the request's configuration.
        violations: what is wrong is noted here. A field that is wrong may be left out.
        path: of the configuration in the request.
        limits: bounds that the table does not have.

    Raises:
        NotImplemented_: a field is not in the table.
    """
    given: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if name not in PARAMETERS:
            raise NotImplemented_(f"{path}.{name}")
        kind = PARAMETERS[name].kind
        if name == "num_return_sequences":
            kind = Number(1, limits.max_return_sequences)
        field = _Field(violations, f"{path}.{name}", descriptor, limits)
        if kind != "pipeline" and (read := field.read(kind, value)) is not None:
            given[name] = read
    return given


def token_ids(name: str, value: Any) -> Iterable[Sequence[int]]:
    """Returns the token ids that a field holds, in rows as the message has them."""
    match PARAMETERS[name].kind:
        case IdList():
            return [value]
        case "token_id":
            return [(value,)]
        case "runs":
            return list(value)
        case "run_biases":
            return [ids for ids, _ in value]
        case "token_biases":
            return [[token_id for token_id, _ in value]]
    return []


def written(config: GenerationConfig) -> dict[str, Any]:
    """Returns the fields of a message that reads as a configuration, by name.

    Empty lists of ids are among them, where the schema has a message for the list: they override
    a default of the model.
    """
    values = msgspec.structs.asdict(config)
    return {
        name: _written(CONFIG_PARAMETERS[name], value)
        for name, value in values.items()
        if value is not None
    }


def _written(row: Parameter, value: Any) -> Any:
    match row.kind:
        case Number() | "switch" | "token_id":
            return value
        case IdList() if not _FIELDS[row.name].is_repeated:
            return {"ids": value}
        case Choice() as kind:
            return _enum_names(kind, _FIELDS[row.name].enum_type)[value]
        case "seconds":
            duration = Duration()
            duration.FromNanoseconds(round(value * 1e9))
            return duration
        case "runs":
            return [{"ids": ids} for ids in value]
        case "run_biases":
            return [{"ids": ids, "bias": bias} for ids, bias in value]
        case "token_biases":
            return dict(value)
        case "decay":
            return {"start_index": value[0], "decay_factor": value[1]}
        case "pipeline":
            return [msgspec.structs.asdict(spec) for spec in value]
        case type():
            return msgspec.structs.asdict(value)
    return value


def _enum_names(kind: Choice, enum: EnumDescriptor) -> Mapping[bool | str, str]:
    """Returns the schema's name of every value of a choice."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value: f"{prefix}{value}".upper() for value in kind.values}


class _Field:
    """One field of a message. What is wrong with it is noted under its path."""

    def __init__(
        self, violations: Violations, path: str, descriptor: Any, limits: FieldLimits
    ) -> None:
        self._violations = violations
        self._path = path
        self._descriptor = descriptor
        self._limits = limits

    def read(self, kind: Kind, value: Any) -> Any:
        """Returns a value in its own type, or None if it cannot be read."""
        match kind:
            case Number():
                number = as_written(value) if isinstance(value, float) else value
                if number not in kind:
                    self._expect(False, f"must be in {kind}")
                    return None
                return number
            case "switch" | "token_id":
                return value
            case IdList():
                return self._ids(kind, value)
            case Choice():
                return self._choice(kind, value)
            case "seconds":
                seconds = times.seconds(value)
                self._expect(seconds in SECONDS, f"must be in {SECONDS}")
                return seconds
            case "texts":
                for index, text in enumerate(value):
                    self._expect(bool(text), "must not be empty", f"[{index}]")
                return tuple(value)
            case "runs":
                return self._runs(value)
            case "run_biases":
                return self._run_biases(value)
            case "token_biases":
                for token_id, bias in value.items():
                    self._expect(bias in BIAS, f"must be in {BIAS}", f"[{token_id}]")
                return tuple(
                    (token_id, as_written(bias)) for token_id, bias in sorted(value.items())
                )
            case "decay":
                return self._decay(value)
            case type():
                return self._arguments(kind, value)
        raise AssertionError(kind)

    def _expect(self, right: bool, description: str, suffix: str = "") -> bool:
        """Notes a description unless something is right, which is returned."""
        if not right:
            self._violations.add(self._path + suffix, description)
        return right

    def _are_few(self, ids: Sequence[int], most: int, suffix: str) -> bool:
        """Notes more ids than there may be; returns whether they are few enough to be read."""
        description = f"has {len(ids)} ids; the limit is {most}"
        return self._expect(len(ids) <= most, description, suffix)

    def _ids(self, kind: IdList, value: Any) -> tuple[int, ...] | None:
        if self._descriptor.is_repeated:
            return tuple(value)
        limits = self._limits
        most = limits.context_length if kind.in_order else limits.vocabulary_size
        if not self._are_few(value.ids, most, ".ids"):
            return None
        if kind.unset_means:
            description = f"must have an id; leave it out {kind.unset_means}"
            self._expect(bool(value.ids), description, ".ids")
        return tuple(value.ids)

    def _choice(self, kind: Choice, value: int) -> bool | str | None:
        enum = self._descriptor.enum_type
        names = _enum_names(kind, enum)
        known = enum.values_by_number.get(value)
        found = [choice for choice, name in names.items() if known and name == known.name]
        self._expect(bool(found), f"must be one of {', '.join(names.values())}")
        return found[0] if found else None

    def _runs(self, value: Any) -> tuple[tuple[int, ...], ...] | None:
        for index, run in enumerate(value):
            self._expect(bool(run.ids), "must have an id", f"[{index}].ids")
            if not self._are_few(run.ids, MAX_RUN_IDS, f"[{index}].ids"):
                return None
        return tuple(tuple(run.ids) for run in value if run.ids)

    def _run_biases(self, value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
        biases: dict[tuple[int, ...], float] = {}
        for index, entry in enumerate(value):
            ids = tuple(entry.ids)
            self._expect(bool(ids), "must have an id", f"[{index}].ids")
            self._expect(ids not in biases, "is given twice", f"[{index}].ids")
            fits = entry.bias in RUN_BIAS or entry.bias == -math.inf
            self._expect(fits, f"must be in {RUN_BIAS} or -inf", f"[{index}].bias")
            biases[ids] = as_written(entry.bias)
        return tuple(biases.items())

    def _decay(self, value: generation_pb2.ExponentialDecayLengthPenalty) -> tuple[int, float]:
        self._expect(value.start_index >= 0, "must be at least 0", ".start_index")
        fits = value.decay_factor in DECAY_FACTOR
        self._expect(fits, f"must be in {DECAY_FACTOR}", ".decay_factor")
        return value.start_index, as_written(value.decay_factor)

    def _arguments(self, arguments: type[Arguments], value: Any) -> Arguments | None:
        """Reads the arguments of a processor by their schema."""
        given = {field.name: _plain(found) for field, found in value.ListFields()}
        problems = list(ArgumentsSchema(arguments_schema(arguments)).problems(given))
        for where, description in problems:
            self._expect(False, description, where)
        return None if problems else msgspec.convert(given, arguments)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return as_written(value)
    return list(value) if isinstance(value, Sequence) else value
