"""Which configurations the sampler's fast path does exactly: the one decision, made once.

A field that is added to `GenerationConfig` is not covered until it is named
here: until then a sequence that uses it is left to Hugging Face's classes.
"""

import msgspec

from model_service.generation import GenerationConfig

COVERED = frozenset(
    {
        # Applied by the fast path.
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "min_tokens_to_keep",
        "repetition_penalty",
        "min_new_tokens",
        # About the end of a sequence, not about the choice of a token.
        "max_new_tokens",
        "eos_token_ids",
        "stop_token_ids",
        "stop_sequences",
        "stop_strings",
        "max_time",
    }
)
"""Fields that the fast path understands, whatever their value."""

_OFF = {
    field.name: field.default
    for field in msgspec.structs.fields(GenerationConfig)
    if field.name not in COVERED
}


def covers(config: GenerationConfig) -> bool:
    """Whether every field that is not covered has the value that turns it off."""
    return all(getattr(config, name) == off for name, off in _OFF.items())
