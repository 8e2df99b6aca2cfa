"""Fields of `GenerationConfig` that hold ids or messages: read, checked, and written back.

How many there may be of each stands in the schema, and was counted before a message came here.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import generation_pb2

from model_service.front.checks.arguments import ArgumentsSchema
from model_service.front.checks.configuration_fields import Range
from model_service.protocol.processor_arguments import (
    Arguments,
    GreenListWatermark,
    SynthIdWatermark,
)
from model_service.protocol.processor_description import arguments_schema
from rpc import durations
from wire.violations import Violations

_BIAS = Range(-100, 100)
_RUN_BIAS = Range(-1e9, 1e9)
_DECAY_FACTOR = Range(0, 100, above_low=True)
_TIME_S = Range(0, 1e9, above_low=True, hint=f"seconds, with {durations.NANOS}")

MAX_RUN_IDS = 1024
"""Most ids of a stop sequence or of bad words."""

_ID_LISTS = {
    "eos_token_ids",
    "allowed_token_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_eos_token_ids",
    "forced_prefix",
    "negative_prompt",
}
_NOT_EMPTY = {
    "allowed_token_ids": "to allow all",
    "negative_prompt": "to take the last token of the prompt",
}
_IN_ORDER = {"forced_prefix", "negative_prompt"}
_RUN_LISTS = {"stop_sequences", "bad_words_ids"}

WITHOUT_FLOATS = _ID_LISTS | _RUN_LISTS | {"stop_token_ids", "stop_strings"}
"""Fields that may be long and hold no float."""


class _Checked:
    """Notes what is wrong under the path of one field."""

    def __init__(self, violations: Violations, path: str) -> None:
        self._violations = violations
        self._path = path

    def number(self, value: float, allowed: Range, suffix: str = "") -> None:
        """Notes a number outside of its range."""
        if value not in allowed:
            self.expect(False, f"must be in {allowed}", suffix)

    def count(self, ids: Sequence[int], most: int, suffix: str) -> bool:
        """Notes more ids than there may be; returns whether they are few enough to be read."""
        self.expect(len(ids) <= most, f"has {len(ids)} ids; the limit is {most}", suffix)
        return len(ids) <= most

    def expect(self, right: bool, description: str, suffix: str = "") -> None:
        """Notes a description unless something is right."""
        if not right:
            self._violations.add(self._path + suffix, description)


def read(
    name: str,
    value: Any,
    violations: Violations,
    path: str,
    *,
    vocabulary_size: int,
    context_length: int,
) -> Any:
    """Reads one field into its own type. What is wrong is noted, not raised.

    Args:
        name: one of `STRUCTURED_FIELDS`.
        value: what the message has.
        violations: where to note.
        path: path of the configuration in the request.
        vocabulary_size: most ids of a set of them.
        context_length: most ids of a text.
    """
    checked = _Checked(violations, f"{path}.{name}")
    if name in _ID_LISTS:
        most = context_length if name in _IN_ORDER else vocabulary_size
        if not checked.count(value.ids, most, ".ids"):
            return ()
        ids = tuple(value.ids)
        if name in _NOT_EMPTY:
            checked.expect(bool(ids), f"must have an id; leave it out {_NOT_EMPTY[name]}", ".ids")
        return ids
    if name in _RUN_LISTS:
        return _read_runs(value, checked)
    return _READERS[name](value, checked)


def id_rows(name: str, value: Any) -> Iterable[tuple[int, ...]]:
    """Returns the token ids that a field holds, in rows as the message has them."""
    if name in _RUN_LISTS:
        return list(value)
    if name == "sequence_bias":
        return [ids for ids, _ in value]
    if name == "logit_bias":
        return [tuple(token_id for token_id, _ in value)]
    if name == "forced_bos_token_id":
        return [(value,)]
    return [value] if name in _ID_LISTS or name == "stop_token_ids" else []


def write(values: dict[str, Any], message: generation_pb2.GenerationConfig) -> None:
    """Writes fields so that reading gives them again; None stays unset.

    Empty lists of ids are written: they override a default of the model.
    """
    for name, value in values.items():
        if value is None:
            continue
        if name in _ID_LISTS:
            getattr(message, name).SetInParent()
            getattr(message, name).ids.extend(value)
        elif name in _RUN_LISTS:
            for ids in value:
                getattr(message, name).add(ids=ids)
        else:
            _WRITERS[name](value, message)


def _read_runs(value: Any, checked: _Checked) -> tuple[tuple[int, ...], ...]:
    for index, run in enumerate(value):
        checked.expect(bool(run.ids), "must have an id", f"[{index}].ids")
        if not checked.count(run.ids, MAX_RUN_IDS, f"[{index}].ids"):
            return ()
    return tuple(tuple(run.ids) for run in value if run.ids)


def _read_stop_strings(value: Any, checked: _Checked) -> tuple[str, ...]:
    for index, text in enumerate(value):
        checked.expect(bool(text), "must not be empty", f"[{index}]")
    return tuple(value)


def _read_sequence_bias(value: Any, checked: _Checked) -> tuple[Any, ...]:
    biases: dict[tuple[int, ...], float] = {}
    for index, entry in enumerate(value):
        ids = tuple(entry.ids)
        checked.expect(bool(ids), "must have an id", f"[{index}].ids")
        checked.expect(ids not in biases, "is given twice", f"[{index}].ids")
        fits = entry.bias in _RUN_BIAS or entry.bias == -math.inf
        checked.expect(fits, f"must be in {_RUN_BIAS} or -inf", f"[{index}].bias")
        biases[ids] = entry.bias
    return tuple(biases.items())


def _read_logit_bias(value: Any, checked: _Checked) -> tuple[tuple[int, float], ...]:
    for token_id, bias in value.items():
        checked.number(bias, _BIAS, f"[{token_id}]")
    return tuple(sorted(value.items()))


def _read_decay(value: Any, checked: _Checked) -> tuple[int, float]:
    checked.expect(value.start_index >= 0, "must be at least 0", ".start_index")
    checked.number(value.decay_factor, _DECAY_FACTOR, ".decay_factor")
    return value.start_index, value.decay_factor


def _read_watermark(value: Any, checked: _Checked, arguments: type[Arguments]) -> Any:
    """Reads a watermark by the schema of its processor; None where that does not accept it."""
    given = {
        field.name: list(found) if field.is_repeated else found
        for field, found in value.ListFields()
    }
    problems = list(ArgumentsSchema(arguments_schema(arguments)).problems(given))
    for where, description in problems:
        checked.expect(False, description, where)
    return None if problems else msgspec.convert(given, arguments)


def _read_time(value: Duration, checked: _Checked) -> float:
    time_s = durations.seconds(value)
    checked.number(time_s, _TIME_S)
    return time_s


_EARLY_STOPPING: dict[generation_pb2.EarlyStopping, bool | str] = {
    generation_pb2.EARLY_STOPPING_TRUE: True,
    generation_pb2.EARLY_STOPPING_FALSE: False,
    generation_pb2.EARLY_STOPPING_NEVER: "never",
}


def _read_early_stopping(value: generation_pb2.EarlyStopping, checked: _Checked) -> bool | str:
    names = generation_pb2.EarlyStopping.keys()[1:]
    checked.expect(value in _EARLY_STOPPING, f"must be one of {', '.join(names)}")
    return _EARLY_STOPPING.get(value, False)


_READERS: dict[str, Callable[[Any, _Checked], Any]] = {
    "stop_token_ids": lambda value, _: tuple(value),
    "stop_strings": _read_stop_strings,
    "forced_bos_token_id": lambda value, _: value,
    "max_time": _read_time,
    "sequence_bias": _read_sequence_bias,
    "logit_bias": _read_logit_bias,
    "exponential_decay_length_penalty": _read_decay,
    "green_list_watermark": partial(_read_watermark, arguments=GreenListWatermark),
    "synth_id_watermark": partial(_read_watermark, arguments=SynthIdWatermark),
    "early_stopping": _read_early_stopping,
}


def _write_time(seconds: float, message: generation_pb2.GenerationConfig) -> None:
    message.max_time.FromNanoseconds(round(seconds * 1e9))


def _write_sequence_bias(value: Any, message: generation_pb2.GenerationConfig) -> None:
    for ids, bias in value:
        message.sequence_bias.add(ids=ids, bias=bias)


def _write_decay(value: tuple[int, float], message: generation_pb2.GenerationConfig) -> None:
    message.exponential_decay_length_penalty.start_index = value[0]
    message.exponential_decay_length_penalty.decay_factor = value[1]


def _write_watermark(
    watermark: Arguments, message: generation_pb2.GenerationConfig, *, field: str
) -> None:
    target = getattr(message, field)
    for name, value in msgspec.structs.asdict(watermark).items():
        if isinstance(value, tuple):
            getattr(target, name).extend(value)
        else:
            setattr(target, name, value)


def _write_early_stopping(value: bool | str, message: generation_pb2.GenerationConfig) -> None:
    names = {read: number for number, read in _EARLY_STOPPING.items()}
    message.early_stopping = names[value]


_WRITERS: dict[str, Callable[[Any, generation_pb2.GenerationConfig], None]] = {
    "stop_token_ids": lambda value, message: message.stop_token_ids.extend(value),
    "stop_strings": lambda value, message: message.stop_strings.extend(value),
    "forced_bos_token_id": lambda value, message: setattr(message, "forced_bos_token_id", value),
    "max_time": _write_time,
    "sequence_bias": _write_sequence_bias,
    "logit_bias": lambda value, message: message.logit_bias.update(value),
    "exponential_decay_length_penalty": _write_decay,
    "green_list_watermark": partial(_write_watermark, field="green_list_watermark"),
    "synth_id_watermark": partial(_write_watermark, field="synth_id_watermark"),
    "early_stopping": _write_early_stopping,
}
