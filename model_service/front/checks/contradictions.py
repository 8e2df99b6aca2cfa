"""Fields of a request's configuration that contradict one another, or have no effect together.

A field that is given without what it needs is refused, or ignored when the
request is lenient. A model's default that lacks what it needs is off.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from model_service.front.checks.configuration_fields import token_ids
from model_service.protocol.number import Number
from model_service.protocol.parameters import CONFIG_PARAMETERS, SAMPLING, GenerationConfig
from wire.violations import Violations

MAX_TORCH_SCORES = 2**24
"""Most scores that torch draws from."""

_MEANT_TO_BE_GENERATED: Mapping[str, Callable[[Iterable[bool]], bool]] = {
    "logit_bias": lambda _: True,
    "allowed_token_ids": any,
    "forced_eos_token_ids": any,
    "forced_prefix": all,
    "forced_bos_token_id": all,
}
"""Which of a field's ids have to be generable, so that a token is left."""

_NEEDY = [row for row in CONFIG_PARAMETERS.values() if row.needs]


@dataclass(frozen=True, slots=True)
class Given:
    """What a request gives of a configuration.

    Attributes:
        values: its fields, by name.
        lenient: whether those without effect are ignored.
        violations: what is wrong is noted here.
        path: of the configuration in the request.
    """

    values: Mapping[str, Any]
    lenient: bool
    violations: Violations
    path: str

    def note(self, field: str, description: str) -> None:
        """Notes what is wrong with a field."""
        self.violations.add(f"{self.path}.{field}", description)

    def has(self, field: str) -> bool:
        """Whether a field has a value with an effect."""
        off = CONFIG_PARAMETERS[field].off
        return bool(self.values.get(field, off) != off)

    def without(self, fields: Container[str], description: str) -> "Given":
        """Returns the rest. A field that is dropped with its effect is noted, unless lenient."""
        for name in self.values:
            if name in fields and self.has(name) and not self.lenient:
                self.note(name, description)
        rest = {name: value for name, value in self.values.items() if name not in fields}
        return Given(rest, self.lenient, self.violations, self.path)


def settled(given: Given, config: GenerationConfig) -> GenerationConfig:
    """Returns a configuration with the fields off that have no effect; those given are noted.

    What is turned off for one row of the table is off for the rows after it.
    """
    for row in _NEEDY:
        unmet = next((need for need in row.needs if not need.is_met(config)), None)
        if unmet is None:
            continue
        if given.has(row.name) and unmet.refused and not given.lenient:
            given.note(
                row.name,
                f"has no effect without {unmet.condition}; leave it out, or set lenient",
            )
        if getattr(config, row.name) != row.off:
            config = msgspec.structs.replace(config, **{row.name: row.off})
    return config


def check(given: Given, config: GenerationConfig, vocabulary_size: int) -> None:
    """Notes contradictions in a configuration whose fields all have an effect.

    Args:
        given: the request's fields.
        config: these over the model's defaults.
        vocabulary_size: ids of the request's revision.
    """
    _check_count(given, config)
    if config.do_sample:
        _check_torch_draws(given, config, vocabulary_size)
        _check_default_warpers(given, config)
    if not given.lenient:
        _check_prefix(given, config)
    _check_forced(given, config)
    if "min_new_tokens" in given.values and config.min_new_tokens > config.max_new_tokens:
        given.note("min_new_tokens", f"must be at most max_new_tokens, {config.max_new_tokens}")


def check_generable(given: Given, not_generable: frozenset[int] | set[int]) -> None:
    """Notes ids that a request means to generate, and that must not be generated.

    Args:
        given: the request's fields.
        not_generable: added ids that must not be generated.
    """
    for field, suffices in _MEANT_TO_BE_GENERATED.items():
        if field not in given.values:
            continue
        ids = list(chain.from_iterable(token_ids(field, given.values[field])))
        excluded = not_generable.intersection(ids)
        is_left = suffices(token_id not in excluded for token_id in ids)
        if excluded and not (is_left and given.lenient):
            effect = "has no effect on" if is_left else "leaves no token to choose but"
            given.note(
                field,
                f"{effect} id {min(excluded)}, which was added as not generable; leave it out"
                f"{', or set lenient' * is_left}",
            )


def _check_count(given: Given, config: GenerationConfig) -> None:
    """Notes sequences that there would not be."""
    count = given.values.get("num_return_sequences", 1)
    if config.num_beams > 1:
        if count > config.num_beams:
            given.note("num_return_sequences", f"must be at most num_beams, {config.num_beams}")
    elif count > 1 and not config.do_sample:
        given.note(
            "num_return_sequences",
            "more than 1 needs do_sample = true or num_beams: greedy sequences would be equal",
        )


def _check_torch_draws(given: Given, config: GenerationConfig, vocabulary_size: int) -> None:
    """Notes draws of a token among more scores, over all beams, than torch draws from."""
    num_scores = config.num_beams * vocabulary_size
    if config.seed_mode == "torch" and num_scores > MAX_TORCH_SCORES:
        given.note(
            "seed_mode",
            f"draws from at most {MAX_TORCH_SCORES} scores as torch does, and all beams together "
            f"have {num_scores}; ask for fewer beams or for SEED_MODE_COUNTER",
        )


def _check_default_warpers(given: Given, config: GenerationConfig) -> None:
    """Notes the model's own defaults that a draw cannot use: its file may be greedy, and have any.

    As there, such a default is refused and not replaced.
    """
    for row in CONFIG_PARAMETERS.values():
        if SAMPLING not in row.needs or row.name in given.values:
            continue
        value = getattr(config, row.name)
        if isinstance(row.kind, Number) and value != row.off and value not in row.kind:
            given.note(
                row.name,
                f"is {value:g} in the model's generation_config.json, which cannot be "
                f"sampled with: give one in {row.kind}",
            )


def _check_prefix(given: Given, config: GenerationConfig) -> None:
    """Notes a forced prefix that is cut."""
    if "forced_prefix" in given.values and len(config.forced_prefix) > config.max_new_tokens:
        given.note(
            "forced_prefix",
            f"must have at most max_new_tokens ids, {config.max_new_tokens}; set lenient to "
            "have it cut",
        )


def _check_forced(given: Given, config: GenerationConfig) -> None:
    """Notes forced ids that are suppressed as well, which leaves no token to choose."""
    suppressed = set(config.suppress_tokens)
    ends = set(config.forced_eos_token_ids)
    forced = {
        "forced_prefix": bool(suppressed & set(config.forced_prefix)),
        "forced_bos_token_id": config.forced_bos_token_id in suppressed,
        "forced_eos_token_ids": bool(ends) and suppressed >= ends,
    }
    if not given.values.keys() & {"suppress_tokens", *forced}:  # a default never forbids a request
        return
    for name, is_suppressed in forced.items():
        if is_suppressed:
            given.note(name, "is also in suppress_tokens, so nothing is left")
