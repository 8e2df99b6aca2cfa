"""Which configurations the sampler's fast path does exactly: the one decision, made once.

A field that is added to `GenerationConfig` is not covered until it is named
here: until then a sequence that uses it is left to Hugging Face's classes.
"""

import msgspec

from model_service.protocol.generation import GenerationConfig

COVERED = frozenset(
    {
        # Processors, see `row_processors.py`.
        "sequence_bias",
        "encoder_repetition_penalty",
        "repetition_penalty",
        "prompt_ignore_length",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "bad_words_ids",
        "min_length",
        "min_new_tokens",
        "allowed_token_ids",
        "forced_prefix",
        "forced_bos_token_id",
        "forced_eos_token_ids",
        "remove_invalid_values",
        "exponential_decay_length_penalty",
        "suppress_tokens",
        "begin_suppress_tokens",
        # Warpers, see `warpers.py`.
        "do_sample",
        "temperature",
        "top_h",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "min_tokens_to_keep",
        # About the end of a sequence, not about the choice of a token.
        "max_new_tokens",
        "max_length",
        "lengths_include_padding",
        "eos_token_ids",
        "stop_token_ids",
        "stop_sequences",
        "stop_strings",
        "prompt_lookup_num_tokens",
        "max_matching_ngram_size",
        "max_time",
    }
)
"""Fields that the fast path understands, whatever their value."""

COVERED_WHEN_SAMPLING = frozenset({"renormalize_logits"})
"""Fields that it understands for draws only: rounding may make a tie of what was none."""

COVERED_WHEN_GREEDY = frozenset({"seed_mode"})
"""Fields without effect where nothing is drawn."""

_OFF = {
    field.name: field.default
    for field in msgspec.structs.fields(GenerationConfig)
    if field.name not in COVERED
}


def covers(config: GenerationConfig) -> bool:
    """Whether every field that is not covered has the value that turns it off."""
    covered = COVERED_WHEN_SAMPLING if config.do_sample else COVERED_WHEN_GREEDY
    return all(getattr(config, name) == off for name, off in _OFF.items() if name not in covered)
