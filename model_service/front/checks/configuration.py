"""How a request's `GenerationConfig` becomes the one that runs: checked, merged, resolved."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from lockstep.v1 import generation_pb2

from model_service.front.checks import structured_fields
from model_service.front.checks.configuration_fields import (
    IMPLYING_OFF,
    RANGES,
    SAMPLING_OFF,
    STRUCTURED_FIELDS,
    SWITCHES,
    Range,
)
from model_service.front.checks.contradictions import settle
from model_service.front.checks.pipeline import Surroundings, read_pipeline
from model_service.front.checks.processor_catalog import BUILT_IN, Catalog
from model_service.protocol.generation import GenerationConfig
from model_service.protocol.processor_arguments import Arguments
from rpc.errors import NotImplemented_
from wire.token_ids import NONE, check_token_ids
from wire.violations import Violations

WATERMARKS = (
    ("green_list_watermark", "synth_id_watermark"),
    ("synth_id_watermark", "green_list_watermark"),
)
"""Each with the one that it replaces."""


SEED_MODES = {
    generation_pb2.SEED_MODE_COUNTER: "counter",
    generation_pb2.SEED_MODE_TORCH: "torch",
}

MAX_TORCH_SCORES = 2**24
"""Most scores that torch draws from."""

MAX_CONTEXT_LENGTH = 2**20
"""Most tokens of a sequence that the schema has room for."""

# Seconds come as whole nanoseconds, and lists of ids may be long.
_AS_THEY_ARE = structured_fields.WITHOUT_FLOATS | {"max_time"}


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A configuration with every default filled in.

    Attributes:
        config: what the engine gets.
        seed: the seed given, or None.
        num_return_sequences: sequences per prompt.
        max_new_tokens_given: whether the request itself set `max_new_tokens`.
        max_length_given: whether it set `max_length`, and not `max_new_tokens`.
        lenient: whether what has no effect is ignored.
    """

    config: GenerationConfig
    seed: int | None
    num_return_sequences: int
    max_new_tokens_given: bool
    max_length_given: bool = False
    lenient: bool = False


def resolve(
    message: generation_pb2.GenerationConfig,
    defaults: GenerationConfig,
    violations: Violations,
    *,
    vocabulary_size: int,
    max_return_sequences: int,
    context_length: int = MAX_CONTEXT_LENGTH,
    without_rows: range = NONE,
    catalog: Catalog = BUILT_IN,
    path: str = "generation_config",
) -> ResolvedConfig:
    """Checks a configuration and merges it over the model's defaults.

    Args:
        message: the request's configuration; unset fields take the default.
        defaults: what an empty request uses.
        violations: what is wrong is noted here.
        vocabulary_size: number of ids of the request's revision.
        max_return_sequences: server's limit of `num_return_sequences`.
        context_length: most tokens of a sequence.
        without_rows: ids that the model has no rows for.
        catalog: the processors that `processors` may name.
        path: path of the message in the request.

    Raises:
        NotImplemented_: a field asks for something that is not offered.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    given = _read_fields(
        message,
        violations,
        path,
        max_return_sequences,
        vocabulary_size=vocabulary_size,
        context_length=context_length,
    )
    for name in given.keys() & STRUCTURED_FIELDS:
        rows = structured_fields.id_rows(name, given[name])
        check_token_ids(f"{path}.{name}", rows, vocabulary_size, without_rows)
    values = msgspec.structs.asdict(defaults)
    values |= {name: value for name, value in given.items() if name in values}
    for name, other in WATERMARKS:
        if given.get(name) is not None:
            values[other] = None
    if "max_new_tokens" in given:
        values["max_length"] = None
    elif values["max_length"] is not None:  # prompts, of one token at least, decide the rest
        values["max_new_tokens"] = max(1, values["max_length"] - 1)
    num_return_sequences = given.get("num_return_sequences", 1)
    _check_count(num_return_sequences, values, violations, path)
    if values["do_sample"] and values["seed_mode"] == "torch":
        _check_torch_draws(values["num_beams"] * vocabulary_size, violations, path)
    if values["num_beams"] > 1 and "min_tokens_to_keep" not in given:
        # As Hugging Face: whatever ends, there is a token to go on with.
        values["min_tokens_to_keep"] = max(1, len(values["eos_token_ids"])) + 1
    if message.processors:
        _replace_order(message, given, values, violations, path)
        surroundings = Surroundings(
            catalog=catalog,
            do_sample=values["do_sample"],
            lenient=message.lenient,
            has_ends=bool(values["eos_token_ids"]),
            vocabulary_size=vocabulary_size,
            without_rows=without_rows,
        )
        values["processors"] = read_pipeline(
            message.processors, surroundings, violations, f"{path}.processors"
        )
    settle(given, values, violations, path, lenient=message.lenient)
    if values["do_sample"]:
        _check_default_warpers(given, values, violations, path)
    if not message.lenient:
        _check_prefix(given, values, violations, path)
    _check_forced(given, values, violations, path)
    if values["min_new_tokens"] > values["max_new_tokens"]:
        if "min_new_tokens" in given:
            violations.add(
                f"{path}.min_new_tokens",
                f"must be at most max_new_tokens, {values['max_new_tokens']}",
            )
        values["min_new_tokens"] = values["max_new_tokens"]  # a default never forbids a request
    return ResolvedConfig(
        config=GenerationConfig(
            **{
                name: value if name in _AS_THEY_ARE else _as_written(value)
                for name, value in values.items()
            }
        ),
        seed=given.get("seed"),
        num_return_sequences=num_return_sequences,
        max_new_tokens_given="max_new_tokens" in given,
        max_length_given="max_length" in given and "max_new_tokens" not in given,
        lenient=message.lenient,
    )


def _read_fields(
    message: generation_pb2.GenerationConfig,
    violations: Violations,
    path: str,
    max_return_sequences: int,
    *,
    vocabulary_size: int,
    context_length: int,
) -> dict[str, Any]:
    """Reads the fields that are set and in range."""
    ranges = RANGES | {"num_return_sequences": Range(1, max_return_sequences)}
    given: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if name in ranges:
            if _as_written(value) not in ranges[name]:
                violations.add(f"{path}.{name}", f"must be in {ranges[name]}")
                continue
            given[name] = value
        elif name in STRUCTURED_FIELDS:
            given[name] = structured_fields.read(
                name,
                value,
                violations,
                path,
                vocabulary_size=vocabulary_size,
                context_length=context_length,
            )
        elif name == "seed_mode":
            if value in SEED_MODES:
                given[name] = SEED_MODES[value]
            else:
                violations.add(f"{path}.seed_mode", "is not a value of SeedMode")
        elif name == "processors":
            continue  # read once everything else is known
        elif name in SWITCHES:
            given[name] = value
        else:
            raise NotImplemented_(f"{path}.{name}")
    return given


def _as_written(value: Any) -> Any:
    """Returns the shortest decimal that is the same float32, also within tuples.

    The wire carries float32, so 0.9 arrives as 0.899999976. Undoing that gives
    Hugging Face's results for the number that was meant, and makes an echoed
    configuration equal to the one it came from.
    """
    if isinstance(value, tuple):
        return tuple(map(_as_written, value))
    if isinstance(value, Arguments):
        fields = msgspec.structs.asdict(value)
        return type(value)(**{name: _as_written(field) for name, field in fields.items()})
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _check_torch_draws(num_scores: int, violations: Violations, path: str) -> None:
    """Notes draws of a token among more scores, those of all beams, than torch draws from."""
    if num_scores > MAX_TORCH_SCORES:
        violations.add(
            f"{path}.seed_mode",
            f"draws from at most {MAX_TORCH_SCORES} scores as torch does, and all beams together "
            f"have {num_scores}; ask for fewer beams or for SEED_MODE_COUNTER",
        )


def _check_count(
    num_return_sequences: int, values: dict[str, Any], violations: Violations, path: str
) -> None:
    """Notes sequences that there would not be."""
    if values["num_beams"] > 1:
        if num_return_sequences > values["num_beams"]:
            violations.add(
                f"{path}.num_return_sequences", f"must be at most num_beams, {values['num_beams']}"
            )
    elif num_return_sequences > 1 and not values["do_sample"]:
        violations.add(
            f"{path}.num_return_sequences",
            "more than 1 needs do_sample = true or num_beams: greedy sequences would be equal",
        )


def _check_default_warpers(
    given: dict[str, Any], values: dict[str, Any], violations: Violations, path: str
) -> None:
    """Notes the model's own defaults that a draw cannot use: its file may be greedy, and have any.

    As there, such a default is refused and not replaced.
    """
    for name in SAMPLING_OFF.keys() - given.keys():
        if values[name] != SAMPLING_OFF[name] and values[name] not in RANGES[name]:
            violations.add(
                f"{path}.{name}",
                f"is {values[name]:g} in the model's generation_config.json, which cannot be "
                f"sampled with: give one in {RANGES[name]}",
            )


def _replace_order(
    message: generation_pb2.GenerationConfig,
    given: dict[str, Any],
    values: dict[str, Any],
    violations: Violations,
    path: str,
) -> None:
    """Turns off the fields that imply a processor, and notes those that the request gives."""
    for name, off in IMPLYING_OFF.items():
        if given.pop(name, off) != off and not message.lenient:
            violations.add(
                f"{path}.{name}",
                "implies a processor, which `processors` replaces; name it there, or set lenient",
            )
    values |= IMPLYING_OFF


def _check_prefix(
    given: dict[str, Any], values: dict[str, Any], violations: Violations, path: str
) -> None:
    """Notes a forced prefix that is cut."""
    if "forced_prefix" in given and len(values["forced_prefix"]) > values["max_new_tokens"]:
        violations.add(
            f"{path}.forced_prefix",
            f"must have at most max_new_tokens ids, {values['max_new_tokens']}; set lenient to "
            "have it cut",
        )


def _check_forced(
    given: dict[str, Any], values: dict[str, Any], violations: Violations, path: str
) -> None:
    """Notes forced ids that are suppressed as well, which leaves no token to choose."""
    if not given.keys() & {
        "suppress_tokens",
        "forced_prefix",
        "forced_bos_token_id",
        "forced_eos_token_ids",
    }:
        return
    suppressed = set(values["suppress_tokens"])
    forced = {
        "forced_prefix": bool(suppressed & set(values["forced_prefix"])),
        "forced_bos_token_id": values["forced_bos_token_id"] in suppressed,
        "forced_eos_token_ids": bool(values["forced_eos_token_ids"])
        and suppressed >= set(values["forced_eos_token_ids"]),
    }
    for name, is_suppressed in forced.items():
        if is_suppressed:
            violations.add(f"{path}.{name}", "is also in suppress_tokens, so nothing is left")


def effective_message(
    resolved: ResolvedConfig, seed: int | None
) -> generation_pb2.GenerationConfig:
    """Writes the configuration that is used; sent again it gives the same result.

    Args:
        resolved: the configuration.
        seed: the call's seed, given or chosen; None when rows have seeds of their own.
    """
    values = msgspec.structs.asdict(resolved.config)
    pipeline = values.pop("processors")
    seed_mode = values.pop("seed_mode")
    if values["max_length"] is not None:
        del values["max_new_tokens"]  # which would override it
    structured = {name: values.pop(name) for name in STRUCTURED_FIELDS & values.keys()}
    message = generation_pb2.GenerationConfig(
        **values,
        num_return_sequences=resolved.num_return_sequences,
        seed_mode=next(mode for mode, name in SEED_MODES.items() if name == seed_mode),
        seed=seed,
    )
    structured_fields.write(structured, message)
    for spec in pipeline:
        message.processors.add(name=spec.name, arguments_json=spec.arguments_json)
    return message
