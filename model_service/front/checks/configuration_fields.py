"""Ranges of the fields of `GenerationConfig`, and the values that turn them off.

One table row per field. A field of the schema that is in none of the tables is
not offered yet and refused by name, never ignored.
"""

import math
from dataclasses import dataclass
from typing import Any

import msgspec

from model_service.protocol.generation import GenerationConfig
from model_service.protocol.processor_order import CLOSING, PROCESSORS, WARPERS


@dataclass(frozen=True, slots=True)
class Range:
    """An interval of numbers. NaN is in none."""

    low: float
    high: float
    above_low: bool = False
    below_high: bool = False
    hint: str = ""

    def __contains__(self, value: float) -> bool:
        """Says whether a value is inside."""
        if math.isnan(value) or value < self.low or value > self.high:
            return False
        return not (
            (self.above_low and value == self.low) or (self.below_high and value == self.high)
        )

    def __str__(self) -> str:
        """Writes the interval as the schema does."""
        left = "(" if self.above_low else "["
        right = ")" if self.below_high else "]"
        hint = f"; {self.hint}" if self.hint else ""
        return f"{left}{self.low:g}, {self.high:g}{right}{hint}"


RANGES = {
    "max_new_tokens": Range(1, math.inf, below_high=True, hint="at most what the context leaves"),
    "max_length": Range(1, math.inf, below_high=True, hint="at most the context"),
    "temperature": Range(1e-10, 1e6, hint="for greedy decoding set do_sample = false instead of 0"),
    "top_k": Range(0, 2**31, below_high=True, hint="0 turns it off"),
    "top_p": Range(0, 1, hint="1 turns it off"),
    "repetition_penalty": Range(1e-6, 100, hint="1 turns it off"),
    "min_new_tokens": Range(0, math.inf, below_high=True, hint="at most max_new_tokens"),
    "min_tokens_to_keep": Range(1, 2**31, below_high=True),
    "min_p": Range(0, 1, hint="0 turns it off"),
    "top_h": Range(0, 1, above_low=True),
    "typical_p": Range(0, 1, above_low=True, hint="1 turns it off"),
    "epsilon_cutoff": Range(0, 1, below_high=True, hint="0 turns it off"),
    "eta_cutoff": Range(0, 1, below_high=True, hint="0 turns it off"),
    "presence_penalty": Range(-100, 100, hint="0 turns it off"),
    "frequency_penalty": Range(-100, 100, hint="0 turns it off"),
    "prompt_ignore_length": Range(0, 2**31, below_high=True, hint="at most the prompt's length"),
    "no_repeat_ngram_size": Range(0, 2**31, below_high=True, hint="0 turns it off"),
    "encoder_repetition_penalty": Range(1e-6, 100, hint="1 turns it off"),
    "encoder_no_repeat_ngram_size": Range(0, 2**31, below_high=True, hint="0 turns it off"),
    "guidance_scale": Range(0, 100, hint="1 turns it off"),
    "num_beams": Range(1, 2**31, below_high=True, hint="1 turns it off"),
    "length_penalty": Range(-100, 100),
    "min_length": Range(0, math.inf, below_high=True, hint="0 turns it off"),
    "prompt_lookup_num_tokens": Range(0, 32, hint="0 turns it off"),
    "max_matching_ngram_size": Range(1, 32),
    "seed": Range(0, 2**63, below_high=True),
}
"""Numeric fields on offer. `num_return_sequences` has a limit of the server, see `resolve`, and
`num_beams`, see `branches.py`."""

SAMPLING_OFF: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_tokens_to_keep": 1,
    "top_h": None,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Fields without effect unless `do_sample`, with the value that has none anyway."""

IMPLYING_OFF: dict[str, Any] = {
    field.name: field.default
    for field in msgspec.structs.fields(GenerationConfig)
    if field.name in {*PROCESSORS, *WARPERS, *CLOSING, "min_tokens_to_keep", "prompt_ignore_length"}
} | {"top_k": 0}
"""Fields that imply a processor, or an argument of one, with the value that has no effect."""

STRUCTURED_FIELDS = frozenset(
    {
        "stop_token_ids",
        "eos_token_ids",
        "stop_strings",
        "stop_sequences",
        "max_time",
        "sequence_bias",
        "logit_bias",
        "bad_words_ids",
        "allowed_token_ids",
        "forced_prefix",
        "forced_bos_token_id",
        "forced_eos_token_ids",
        "exponential_decay_length_penalty",
        "suppress_tokens",
        "begin_suppress_tokens",
        "green_list_watermark",
        "synth_id_watermark",
        "negative_prompt",
        "early_stopping",
    }
)
"""Fields on offer that hold ids or messages; `structured_fields.py` reads them."""

SWITCHES = frozenset(
    {
        "do_sample",
        "lenient",
        "lengths_include_padding",
        "remove_invalid_values",
        "renormalize_logits",
    }
)
"""Fields on offer that are true or false."""

SUPPORTED_FIELDS = (
    frozenset(RANGES)
    | STRUCTURED_FIELDS
    | SWITCHES
    | {"num_return_sequences", "processors", "seed_mode"}
)
"""Names of the fields that have an effect."""
