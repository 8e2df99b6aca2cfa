"""Fields of `GenerationConfig` that have an effect only beside another: one table row each.

A field that is given without what it needs is refused, or ignored when the
request is lenient. A model's default that lacks what it needs is off.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from model_service.front.checks.configuration_fields import SAMPLING_OFF
from wire.violations import Violations


@dataclass(frozen=True, slots=True)
class Need:
    """One dependence.

    Attributes:
        field: the field that may have no effect.
        off: its value that has none anyway.
        condition: what it needs, as a caller would write it.
        is_met: whether values of all fields, defaults included, fulfil that.
        refused: whether a request that gives the field without it is refused. Hugging Face takes
            and replaces a few, and so do requests.
    """

    field: str
    off: Any
    condition: str
    is_met: Callable[[Mapping[str, Any]], bool]
    refused: bool = True


def _has_ends(values: Mapping[str, Any]) -> bool:
    return bool(values["eos_token_ids"])


def _has_beams(values: Mapping[str, Any]) -> bool:
    return bool(values["num_beams"] > 1)


def _keeps_some(values: Mapping[str, Any]) -> bool:
    """Whether a warper is on that keeps a least number of tokens."""
    warpers = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
    return any(values[name] != SAMPLING_OFF[name] for name in warpers)


NEEDS = (
    *(
        Need(field, off, "do_sample = true", lambda values: bool(values["do_sample"]))
        for field, off in SAMPLING_OFF.items()
    ),
    Need("min_tokens_to_keep", 1, "a warper that keeps some, such as top_p", _keeps_some),
    Need(
        "prompt_ignore_length",
        0,
        "repetition_penalty",
        lambda values: values["repetition_penalty"] != 1.0,
    ),
    Need("negative_prompt", None, "guidance_scale", lambda values: values["guidance_scale"] != 1.0),
    Need("length_penalty", 1.0, "num_beams", _has_beams),
    Need("early_stopping", False, "num_beams", _has_beams),
    Need("min_new_tokens", 0, "eos_token_ids", _has_ends),
    Need("min_length", 0, "eos_token_ids", _has_ends),
    Need(
        "min_length",
        0,
        "min_new_tokens = 0: it takes the place of min_length",
        lambda values: values["min_new_tokens"] == 0,
        refused=False,
    ),
    Need(
        "lengths_include_padding",
        False,
        "a length that it could change: max_length, min_length or forced_bos_token_id",
        lambda values: bool(
            values["max_length"] is not None
            or values["min_length"]
            or values["forced_bos_token_id"] is not None
            or values["processors"]
        ),
    ),
    Need("prompt_lookup_num_tokens", 0, "num_beams = 1", lambda values: not _has_beams(values)),
    Need(
        "max_matching_ngram_size",
        2,
        "prompt_lookup_num_tokens",
        lambda values: values["prompt_lookup_num_tokens"] > 0,
    ),
    Need("exponential_decay_length_penalty", None, "eos_token_ids", _has_ends),
)
"""Checked in order: what a row turns off is off for the rows after it."""


def settle(
    given: Mapping[str, Any],
    values: dict[str, Any],
    violations: Violations,
    path: str,
    *,
    lenient: bool,
) -> None:
    """Notes fields without effect, and turns them off.

    Args:
        given: fields of the request.
        values: fields of the request over the model's defaults; changed in place.
        violations: where to note.
        path: of the configuration in the request.
        lenient: whether to turn off without noting.
    """
    noted = set[str]()
    for need in NEEDS:
        if need.is_met(values):
            continue
        is_given = given.get(need.field, need.off) != need.off
        if is_given and need.refused and not lenient and need.field not in noted:
            noted.add(need.field)
            violations.add(
                f"{path}.{need.field}",
                f"has no effect without {need.condition}; leave it out, or set lenient",
            )
        if need.field in values:
            values[need.field] = need.off
