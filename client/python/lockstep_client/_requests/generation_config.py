"""Generation keywords, named as in Hugging Face's `GenerationConfig`, and the wire.

Keywords are fields of the message, with the same name and what their type takes.
`_FIELDS` and `_CONVERTERS` have the others: those that Hugging Face spells
differently or gives another shape.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from lockstep.v1 import generation_pb2 as generation_pb
from lockstep.v1 import scores_pb2 as scores_pb
from lockstep.v1 import tokens_pb2 as tokens_pb

from lockstep_client._requests import hugging_face
from lockstep_client._requests.options import GenerationOptions, Ids
from lockstep_client._values import durations, enums, fields, messages, token_ids
from lockstep_client._values.choices import check_names, choose
from lockstep_client._values.messages import expected
from lockstep_client.exceptions import InvalidArgument, WrongType


def build(
    options: Mapping[str, Any], *, beside: type = GenerationOptions
) -> generation_pb.GenerationConfig | None:
    """Builds the wire form of keywords; None when there are none.

    Values are not judged here: the server does, and names the field.

    Args:
        options: keywords. A value of None counts as missing.
        beside: the call's own keywords (a TypedDict over `GenerationOptions`),
            which are skipped.

    Raises:
        TypeError: a keyword does not exist, or has a value of another type.
        ValueError: a value does not fit the field.
    """
    config = generation_pb.GenerationConfig()
    empty = True
    for name, value in checked(options, beside).items():
        if name in KEYWORDS and value is not None:
            config.MergeFrom(_field(name, value))
            empty = False
    return None if empty else config


def checked(options: Mapping[str, Any], own: type) -> dict[str, Any]:
    """Returns keywords, those of `generation_config` among them, and none that is harmless.

    Args:
        options: keywords.
        own: a TypedDict of those of the call.

    Raises:
        WrongType: a keyword does not exist; it says why, or which was probably meant.
    """
    given = hugging_face.accepted(options, own.__annotations__)
    check_names(given, own)
    return given


def _field(name: str, value: Any) -> generation_pb.GenerationConfig:
    field: Any = generation_pb.GenerationConfig.DESCRIPTOR.fields_by_name[_FIELDS.get(name, name)]
    convert = _CONVERTERS.get(name) or _converter(field)
    try:
        given: dict[str, Any] = {field.name: convert(value)}
    except InvalidArgument as error:
        text = str(error) if str(error).startswith(name) else f"{name}: {error}"
        raise type(error)(text) from None
    except (TypeError, ValueError, AttributeError):
        raise WrongType(f"{name} is {_SHAPES.get(name, expected(field))}, not {value!r}.") from None
    shape = _SHAPES.get(name, "")
    messages.check(generation_pb.GenerationConfig, field.name, given[field.name], name, shape)
    return generation_pb.GenerationConfig(**given)


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    """Returns what the type of a field makes of a value."""
    match field.message_type and field.message_type.name:
        case "TokenIdList" | "TokenSequence":
            return _sequences if fields.is_repeated(field) else _id_list
        case "Duration":
            return durations.message
    return _plain_value


def warn_of_unused_seed(effective_config: generation_pb.GenerationConfig) -> None:
    """Warns a caller who has given a seed where nothing is drawn."""
    if not effective_config.do_sample:
        warnings.warn(
            "seed has no effect without do_sample=True: the most probable tokens are taken.",
            stacklevel=2,
        )


def to_dict(config: generation_pb.GenerationConfig) -> dict[str, Any]:
    """Returns the fields that are set, by their names in the schema."""
    return {field.name: _plain(field, value) for field, value in config.ListFields()}


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _id_list(value: int | Ids) -> dict[str, Ids]:
    return {"ids": token_ids.one_or_row(value)}


def _sequences(value: Sequence[Ids]) -> list[dict[str, Ids]]:
    return [{"ids": token_ids.row(ids)} for ids in value]


def _logit_bias(value: Mapping[int, float]) -> dict[int, float]:
    return {token_ids.one(token_id): bias for token_id, bias in value.items()}


def _decay(value: tuple[int, float]) -> dict[str, float]:
    start_index, decay_factor = value
    return {"start_index": start_index, "decay_factor": decay_factor}


def _sequence_bias(
    value: Mapping[tuple[int, ...], float] | Sequence[tuple[Ids, float]],
) -> list[dict[str, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else value
    return [{"ids": token_ids.row(ids), "bias": bias} for ids, bias in pairs]


def _processors(value: Sequence[str | tuple[str, Mapping[str, Any] | str]]) -> list[dict[str, str]]:
    """Builds a pipeline of names, or of names with arguments: a mapping, or JSON as it is."""
    if isinstance(value, str):
        raise TypeError
    pairs = [(entry, "") if isinstance(entry, str) else entry for entry in value]
    return [
        {
            "name": name,
            "arguments_json": arguments if isinstance(arguments, str) else json.dumps(arguments),
        }
        for name, arguments in pairs
    ]


# Keywords whose field has another name.
_FIELDS = {"eos_token_id": "eos_token_ids", "forced_eos_token_id": "forced_eos_token_ids"}

_SEED_MODES = enums.values(generation_pb.SeedMode)
_EARLY_STOPPING: dict[bool | str, generation_pb.EarlyStopping] = {
    True: generation_pb.EARLY_STOPPING_TRUE,
    False: generation_pb.EARLY_STOPPING_FALSE,
    "never": generation_pb.EARLY_STOPPING_NEVER,
}

# Keywords whose field has another shape, or whose values are looked at here.
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "stop_strings": lambda value: [value] if isinstance(value, str) else value,
    "stop_token_ids": token_ids.one_or_row,
    "forced_bos_token_id": token_ids.one,
    "logit_bias": _logit_bias,
    "seed_mode": lambda value: choose("seed_mode", value, _SEED_MODES),
    "early_stopping": lambda value: choose("early_stopping", value, _EARLY_STOPPING),
    "exponential_decay_length_penalty": _decay,
    "sequence_bias": _sequence_bias,
    "processors": _processors,
}

# What keywords take whose field does not say it.
_SHAPES = {
    "logit_bias": "a mapping of ids to numbers",
    "sequence_bias": "a mapping of rows of ids to numbers, or a list of such pairs",
    "exponential_decay_length_penalty": "a pair of a start and a factor",
    "processors": "a list of names, or of pairs of a name and its arguments",
    "max_time": "a number of seconds",
    "bad_words_ids": "a list of rows of ids",
    "stop_sequences": "a list of rows of ids",
}

KEYWORDS = frozenset(GenerationOptions.__annotations__) - {"generation_config"}


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _shortest(entry) for key, entry in value.items()}
    if fields.is_repeated(field):
        return [_plain_message(item) if isinstance(item, Message) else item for item in value]
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, Message):
        return _plain_message(value)
    return _shortest(value) if isinstance(value, float) else value


def _plain_message(message: Message) -> Any:
    if isinstance(message, scores_pb.TokenIdList | tokens_pb.TokenSequence):
        return list(message.ids)
    return MessageToDict(message, preserving_proto_field_name=True)


def _shortest(value: float) -> float:
    """Returns the shortest decimal that is the same float32: 0.7, not 0.699999988."""
    return float(str(np.float32(value)))
