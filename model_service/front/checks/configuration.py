"""How a request's `GenerationConfig` becomes the one that runs: checked, merged, resolved."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
from lockstep.v1 import generation_pb2

from model_service.front.checks import contradictions
from model_service.front.checks.configuration_fields import (
    FieldLimits,
    read_fields,
    token_ids,
    written,
)
from model_service.front.checks.contradictions import Given
from model_service.front.checks.pipeline import Surroundings, read_pipeline
from model_service.front.checks.processor_catalog import BUILT_IN, Catalog
from model_service.protocol.parameters import (
    CONFIG_PARAMETERS,
    IMPLYING_OFF,
    PARAMETERS,
    GenerationConfig,
)
from wire.token_ids import NONE, check_token_ids
from wire.violations import Violations

MAX_CONTEXT_LENGTH = 2**20
"""Most tokens of a sequence that the schema has room for."""


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
    not_generable: frozenset[int] | set[int] = frozenset(),
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
        not_generable: added ids that must not be generated.
        catalog: the processors that `processors` may name.
        path: path of the message in the request.

    Raises:
        NotImplemented_: a field asks for something that is not offered.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    limits = FieldLimits(vocabulary_size, context_length, max_return_sequences)
    values = read_fields(message, violations, path, limits)
    for name, value in values.items():
        rows = token_ids(name, value)
        check_token_ids(
            f"{path}.{name}",
            rows,
            vocabulary_size,
            without_rows,
            one_row=PARAMETERS[name].kind not in ("runs", "run_biases"),
        )
    given = Given(values, message.lenient, violations, path)
    contradictions.check_generable(given, not_generable)
    config = _over_defaults(given, defaults, _replaced(message))
    if message.processors:
        given = given.without(
            IMPLYING_OFF,
            "implies a processor, which `processors` replaces; name it there, or set lenient",
        )
        config = msgspec.structs.replace(config, **IMPLYING_OFF)
        surroundings = Surroundings(
            catalog=catalog,
            config=config,
            lenient=message.lenient,
            vocabulary_size=vocabulary_size,
            without_rows=without_rows,
        )
        pipeline = read_pipeline(message.processors, surroundings, violations, f"{path}.processors")
        config = msgspec.structs.replace(config, processors=pipeline)
    config = contradictions.settled(given, config)
    contradictions.check(given, config, vocabulary_size)
    if config.min_new_tokens > config.max_new_tokens:  # a default never forbids a request
        config = msgspec.structs.replace(config, min_new_tokens=config.max_new_tokens)
    return ResolvedConfig(
        config=config,
        seed=values.get("seed"),
        num_return_sequences=values.get("num_return_sequences", 1),
        max_new_tokens_given="max_new_tokens" in values,
        max_length_given="max_length" in values and "max_new_tokens" not in values,
        lenient=message.lenient,
    )


def _replaced(message: generation_pb2.GenerationConfig) -> Iterator[str]:
    """Yields the fields that a request replaces with another, such as one watermark's by one."""
    for field, _ in message.ListFields():
        alternatives = field.containing_oneof.fields if field.containing_oneof else ()
        yield from (other.name for other in alternatives if other.name != field.name)


def _over_defaults(
    given: Given, defaults: GenerationConfig, replaced: Iterable[str]
) -> GenerationConfig:
    """Returns the fields of a request over the model's defaults, and what they decide of others."""
    changes = {name: CONFIG_PARAMETERS[name].off for name in replaced}
    changes |= {name: given.values[name] for name in given.values.keys() & CONFIG_PARAMETERS.keys()}
    config = msgspec.structs.replace(defaults, **changes)
    if "min_new_tokens" in given.values:  # also where it is 0
        config = msgspec.structs.replace(config, min_length=0)
    if "max_new_tokens" in given.values:
        config = msgspec.structs.replace(config, max_length=None)
    elif config.max_length is not None:  # prompts, of one token at least, decide the rest
        config = msgspec.structs.replace(config, max_new_tokens=max(1, config.max_length - 1))
    if config.num_beams > 1 and "min_tokens_to_keep" not in given.values:
        # As Hugging Face: whatever ends, there is a token to go on with.
        most = max(1, len(config.eos_token_ids)) + 1
        config = msgspec.structs.replace(config, min_tokens_to_keep=most)
    return config


def effective_message(
    resolved: ResolvedConfig, seed: int | None
) -> generation_pb2.GenerationConfig:
    """Writes the configuration that is used; sent again it gives the same result.

    Args:
        resolved: the configuration.
        seed: the call's seed, given or chosen; None when rows have seeds of their own.
    """
    fields = written(resolved.config)
    if resolved.config.max_length is not None:
        del fields["max_new_tokens"]  # which would override it
    return generation_pb2.GenerationConfig(
        **fields, num_return_sequences=resolved.num_return_sequences, seed=seed
    )
