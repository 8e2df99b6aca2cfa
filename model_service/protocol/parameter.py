"""The columns of the table of generation fields: what a row of `parameters.py` says."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from enum import Enum
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

import msgspec

from model_service.protocol.number import Number
from model_service.protocol.processor_arguments import (
    Arguments,
    ExponentialDecayLengthPenalty,
    LogitBias,
    LogitBiasEntry,
    Runs,
    SequenceBias,
    SequenceBiasEntry,
    TokenId,
    TokenIds,
)


@dataclass(frozen=True, slots=True)
class IdList:
    """Token ids.

    Attributes:
        in_order: whether they are a text and not a set.
        unset_means: what leaving the field out does instead of giving no id; empty where no id is
            a value.
    """

    in_order: bool = False
    unset_means: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, which an enum of the schema names."""

    values: tuple[bool | str, ...]


Form = Literal[
    "switch",
    "token_id",
    "runs",
    "run_biases",
    "token_biases",
    "decay",
    "texts",
    "seconds",
    "pipeline",
]
"""What needs no further word. Runs are of ids; biases are pairs, of a run or an id and its bias;
decay is a pair of a length and the growth after it; a pipeline is processors with arguments."""

Kind = Number | Form | IdList | Choice | type[Arguments]
"""What a field holds. A class of arguments: those of its processor, as they are."""


class Stage(Enum):
    """When a processor is applied; within a stage, in the order of the table."""

    PROCESSOR = 1
    """To every sequence."""

    WARPER = 2
    """To sequences that are sampled."""

    CLOSING = 3
    """To every sequence, last."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a field needs to have an effect.

    Attributes:
        condition: as a caller would write it.
        is_met: whether a configuration, defaults included, fulfils it.
        refused: whether a request that gives the field without it is refused. Hugging Face takes
            and replaces a few, and so do requests.
    """

    condition: str
    is_met: Callable[[Any], bool]
    refused: bool = True


_UNWRITTEN: Any = object()
_SAME = "the same"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row of the table.

    Attributes:
        kind: what the field holds. Where it has a processor: what that takes as an argument, and
            the value that turns it off.
        argument: the argument of its processor that it is; unless written, that of its own name.
        off: the value without effect; unless written, the default.
        needs: what the field needs to have an effect.
        stage: when its processor is applied; None where it has none.
        takes: further fields that are arguments of its processor.
        repeatable: whether a pipeline may have the processor more than once. Any other is given
            all that it is to do at once.
        fast_path: when the sampler's fast path does exactly what the field asks for. Until that
            is written, sequences with the field are left to Hugging Face's classes.
        hugging_face: its name there; None where they do not have it.
        in_file: whether a model's own file sets it, as that has it.
        is_clipped: whether a number above the range in a model's own file counts as the end of
            the range: where it changes speed only.
        is_on: whether a configuration has a value with an effect. Unless written: it is not
            `off`, nor beyond it where that is an end of the range, as in Hugging Face.
        name: the field's.
        default: where neither a request nor the model's own file has the field.
        meaning: a sentence for callers.
        arguments: class of the arguments of its processor.
    """

    kind: Kind
    argument: str = ""
    _: KW_ONLY
    off: Any = _UNWRITTEN
    needs: tuple[Need, ...] = ()
    stage: Stage | None = None
    takes: tuple[str, ...] = ()
    repeatable: bool = False
    fast_path: Literal["always", "when sampling", "when greedy", "never"] = "never"
    hugging_face: str | None = _SAME
    in_file: bool = True
    is_clipped: bool = False
    is_on: Callable[[Any], bool] = _UNWRITTEN
    name: str = ""
    default: Any = None
    meaning: str = ""
    arguments: type[Any] = Arguments

    def of(self, config: Any) -> Arguments:
        """Returns the arguments of its processor that a configuration asks for."""
        value = getattr(config, self.name)
        match self.kind:
            case type():
                return cast(Arguments, value)
            case "switch":
                return cast(Arguments, self.arguments())
            case "decay":
                return ExponentialDecayLengthPenalty(*value)
            case "run_biases":
                return SequenceBias(tuple(SequenceBiasEntry(*pair) for pair in value))
            case "token_biases":
                return LogitBias(tuple(LogitBiasEntry(*pair) for pair in value))
        others = [getattr(config, name) for name in self.takes]
        return cast(Arguments, self.arguments(value, *others))


def rows_of(table: type[msgspec.Struct]) -> dict[str, Parameter]:
    """Reads the rows of a table, which annotate the fields of a class, by name and in order.

    Each is `Annotated[its type, Parameter(...), "Its meaning."]`.
    """
    hints = get_type_hints(table, include_extras=True)
    rows: dict[str, Parameter] = {}
    for field in msgspec.structs.fields(table):
        _, row, meaning = get_args(hints[field.name])
        default = None if field.required else field.default
        rows[field.name] = replace(
            row,
            name=field.name,
            default=default,
            off=default if row.off is _UNWRITTEN else row.off,
            meaning=meaning,
            hugging_face=field.name if row.hugging_face == _SAME else row.hugging_face,
        )
    return {name: _completed(row, rows) for name, row in rows.items()}


def _completed(row: Parameter, rows: Mapping[str, Parameter]) -> Parameter:
    """Fills in what follows from a row, and from those of the other fields that it names."""
    kind = row.kind
    if row.stage and isinstance(kind, Number) and row.off is not None:
        hint = kind.hint or f"{row.off:g} turns it off"
        kind = replace(kind.reaching(row.off), hint=hint)
    return replace(
        row,
        kind=kind,
        is_on=_switch(row.name, kind, row.off) if row.is_on is _UNWRITTEN else row.is_on,
        arguments=_arguments(row, rows) if row.stage else Arguments,
    )


def _switch(name: str, kind: Kind, off: Any) -> Callable[[Any], bool]:
    if isinstance(kind, Number) and off == kind.low:
        return lambda config: getattr(config, name) > off
    if isinstance(kind, Number) and off == kind.high:
        return lambda config: getattr(config, name) < off
    return lambda config: getattr(config, name) != off


def _arguments(row: Parameter, rows: Mapping[str, Parameter]) -> type[Arguments]:
    """Returns the class of a processor's arguments, made of its row where it has no own shape."""
    match row.kind:
        case type():
            return row.kind
        case "decay":
            return ExponentialDecayLengthPenalty
        case "run_biases":
            return SequenceBias
        case "token_biases":
            return LogitBias
    fields: list[Any] = []
    if row.kind != "switch":
        fields.append((row.argument or row.name, _argument_type(row.kind)))
    for name in row.takes:
        fields.append((name, _argument_type(rows[name].kind), rows[name].default))
    name = row.name.title().replace("_", "")
    made = msgspec.defstruct(name, fields, bases=(Arguments,), frozen=True)
    return cast(type[Arguments], made)


def _argument_type(kind: Kind) -> Any:
    match kind:
        case Number():
            return Annotated[int if kind.whole else float, kind.meta]
        case "token_id":
            return TokenId
        case "runs":
            return Runs
    return TokenIds
