"""Which processors and warpers a configuration switches on, and their order.

The order is that of Hugging Face's `GenerationMixin._get_logits_processor`; ours
(`presence_penalty`, `frequency_penalty`, `logit_bias`, `allowed_token_ids`,
`forced_prefix`) stand where the schema says. The front names them to callers,
the engine builds them: both read these tables.
"""

from collections.abc import Callable

from model_service.generation import GenerationConfig

Condition = Callable[[GenerationConfig], bool]

PROCESSORS: dict[str, Condition] = {
    "guidance_scale": lambda c: c.guidance_scale != 1.0,
    "sequence_bias": lambda c: bool(c.sequence_bias),
    "encoder_repetition_penalty": lambda c: c.encoder_repetition_penalty != 1.0,
    "repetition_penalty": lambda c: c.repetition_penalty != 1.0,
    "presence_penalty": lambda c: c.presence_penalty != 0.0,
    "frequency_penalty": lambda c: c.frequency_penalty != 0.0,
    "logit_bias": lambda c: bool(c.logit_bias),
    "no_repeat_ngram_size": lambda c: c.no_repeat_ngram_size > 0,
    "encoder_no_repeat_ngram_size": lambda c: c.encoder_no_repeat_ngram_size > 0,
    "bad_words_ids": lambda c: bool(bad_words(c)),
    "min_length": lambda c: c.min_length > 0 and bool(c.eos_token_ids),
    "min_new_tokens": lambda c: c.min_new_tokens > 0 and bool(c.eos_token_ids),
    "allowed_token_ids": lambda c: c.allowed_token_ids is not None,
    "forced_prefix": lambda c: bool(c.forced_prefix),
    "forced_bos_token_id": lambda c: c.forced_bos_token_id is not None,
    "forced_eos_token_ids": lambda c: bool(c.forced_eos_token_ids),
    "remove_invalid_values": lambda c: c.remove_invalid_values,
    "exponential_decay_length_penalty": lambda c: (
        c.exponential_decay_length_penalty is not None and bool(c.eos_token_ids)
    ),
    "suppress_tokens": lambda c: bool(c.suppress_tokens),
    "begin_suppress_tokens": lambda c: bool(c.begin_suppress_tokens),
}
"""Applied to every sequence, first."""

WARPERS: dict[str, Condition] = {
    "temperature": lambda c: c.temperature != 1.0,
    "top_h": lambda c: c.top_h is not None,
    "top_k": lambda c: c.top_k > 0,
    "top_p": lambda c: c.top_p < 1.0,
    "min_p": lambda c: c.min_p > 0.0,
    "typical_p": lambda c: c.typical_p < 1.0,
    "epsilon_cutoff": lambda c: c.epsilon_cutoff > 0.0,
    "eta_cutoff": lambda c: c.eta_cutoff > 0.0,
}
"""Applied to sequences that are sampled, after the processors."""

CLOSING: dict[str, Condition] = {
    "green_list_watermark": lambda c: c.green_list_watermark is not None,
    "renormalize_logits": lambda c: c.renormalize_logits,
}
"""Applied to every sequence, last."""


def active(config: GenerationConfig, table: dict[str, Condition]) -> list[str]:
    """Names the entries of a table that change something, in order."""
    if table is WARPERS and not config.do_sample:
        return []
    return [name for name, is_on in table.items() if is_on(config)]


def applied_processors(config: GenerationConfig) -> list[str]:
    """Names everything that is applied to a sequence's logits, in order."""
    return [name for table in (PROCESSORS, WARPERS, CLOSING) for name in active(config, table)]


def bad_words(config: GenerationConfig) -> list[tuple[int, ...]]:
    """Returns the runs that are kept from being generated.

    Hugging Face leaves out single end-of-sequence ids, so that a list of words
    never keeps a sequence from ending.
    """
    ends = {(token_id,) for token_id in config.eos_token_ids}
    return [word for word in config.bad_words_ids if word not in ends]
