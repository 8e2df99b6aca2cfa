"""Which processors and warpers a configuration switches on, their arguments and their order.

The order is that of Hugging Face's `GenerationMixin._get_logits_processor`; ours
(`presence_penalty`, `frequency_penalty`, `logit_bias`, `allowed_token_ids`,
`forced_prefix`) stand where the schema says. A configuration with `processors`
has an order of its own instead. The front names what is applied to callers, the
engine builds it: both read these tables.
"""

from collections.abc import Callable

from model_service.protocol import processor_arguments as arguments
from model_service.protocol.generation import GenerationConfig
from model_service.protocol.processor_arguments import Arguments

Reader = Callable[[GenerationConfig], Arguments | None]
"""Returns the arguments of a processor, or None where it would change nothing."""

GUIDANCE = "guidance_scale"
"""Applied before all others: it reads the distribution of another row, which no argument names."""

PROCESSORS: dict[str, Reader] = {
    "sequence_bias": lambda c: (
        arguments.SequenceBias(
            tuple(arguments.SequenceBiasEntry(ids, bias) for ids, bias in c.sequence_bias)
        )
        if c.sequence_bias
        else None
    ),
    "encoder_repetition_penalty": lambda c: (
        arguments.EncoderRepetitionPenalty(c.encoder_repetition_penalty)
        if c.encoder_repetition_penalty != 1.0
        else None
    ),
    "repetition_penalty": lambda c: (
        arguments.RepetitionPenalty(c.repetition_penalty, c.prompt_ignore_length)
        if c.repetition_penalty != 1.0
        else None
    ),
    "presence_penalty": lambda c: (
        arguments.PresencePenalty(c.presence_penalty) if c.presence_penalty != 0.0 else None
    ),
    "frequency_penalty": lambda c: (
        arguments.FrequencyPenalty(c.frequency_penalty) if c.frequency_penalty != 0.0 else None
    ),
    "logit_bias": lambda c: (
        arguments.LogitBias(tuple(arguments.LogitBiasEntry(*entry) for entry in c.logit_bias))
        if c.logit_bias
        else None
    ),
    "no_repeat_ngram_size": lambda c: (
        arguments.NoRepeatNGramSize(c.no_repeat_ngram_size) if c.no_repeat_ngram_size > 0 else None
    ),
    "encoder_no_repeat_ngram_size": lambda c: (
        arguments.EncoderNoRepeatNGramSize(c.encoder_no_repeat_ngram_size)
        if c.encoder_no_repeat_ngram_size > 0
        else None
    ),
    "bad_words_ids": lambda c: (
        arguments.BadWordsIds(c.bad_words_ids)
        if bad_words(c.bad_words_ids, c.eos_token_ids)
        else None
    ),
    "min_length": lambda c: (
        arguments.MinLength(c.min_length) if c.min_length > 0 and c.eos_token_ids else None
    ),
    "min_new_tokens": lambda c: (
        arguments.MinNewTokens(c.min_new_tokens)
        if c.min_new_tokens > 0 and c.eos_token_ids
        else None
    ),
    "allowed_token_ids": lambda c: (
        None if c.allowed_token_ids is None else arguments.AllowedTokenIds(c.allowed_token_ids)
    ),
    "forced_prefix": lambda c: arguments.ForcedPrefix(c.forced_prefix) if c.forced_prefix else None,
    "forced_bos_token_id": lambda c: (
        None if c.forced_bos_token_id is None else arguments.ForcedBosTokenId(c.forced_bos_token_id)
    ),
    "forced_eos_token_ids": lambda c: (
        arguments.ForcedEosTokenIds(c.forced_eos_token_ids) if c.forced_eos_token_ids else None
    ),
    "remove_invalid_values": lambda c: (
        arguments.RemoveInvalidValues() if c.remove_invalid_values else None
    ),
    "exponential_decay_length_penalty": lambda c: (
        arguments.ExponentialDecayLengthPenalty(*c.exponential_decay_length_penalty)
        if c.exponential_decay_length_penalty is not None and c.eos_token_ids
        else None
    ),
    "suppress_tokens": lambda c: (
        arguments.SuppressTokens(c.suppress_tokens) if c.suppress_tokens else None
    ),
    "begin_suppress_tokens": lambda c: (
        arguments.BeginSuppressTokens(c.begin_suppress_tokens) if c.begin_suppress_tokens else None
    ),
}
"""Applied to every sequence, first."""

WARPERS: dict[str, Reader] = {
    "temperature": lambda c: arguments.Temperature(c.temperature) if c.temperature != 1.0 else None,
    "top_h": lambda c: None if c.top_h is None else arguments.TopH(c.top_h),
    "top_k": lambda c: arguments.TopK(c.top_k, c.min_tokens_to_keep) if c.top_k > 0 else None,
    "top_p": lambda c: arguments.TopP(c.top_p, c.min_tokens_to_keep) if c.top_p < 1.0 else None,
    "min_p": lambda c: arguments.MinP(c.min_p, c.min_tokens_to_keep) if c.min_p > 0.0 else None,
    "typical_p": lambda c: (
        arguments.TypicalP(c.typical_p, c.min_tokens_to_keep) if c.typical_p < 1.0 else None
    ),
    "epsilon_cutoff": lambda c: (
        arguments.EpsilonCutoff(c.epsilon_cutoff, c.min_tokens_to_keep)
        if c.epsilon_cutoff > 0.0
        else None
    ),
    "eta_cutoff": lambda c: (
        arguments.EtaCutoff(c.eta_cutoff, c.min_tokens_to_keep) if c.eta_cutoff > 0.0 else None
    ),
}
"""Applied to sequences that are sampled, after the processors."""

CLOSING: dict[str, Reader] = {
    "green_list_watermark": lambda c: c.green_list_watermark,
    "synth_id_watermark": lambda c: c.synth_id_watermark,
    "renormalize_logits": lambda c: arguments.RenormalizeLogits() if c.renormalize_logits else None,
}
"""Applied to every sequence, last."""

NEED_ENDS = frozenset({"min_length", "min_new_tokens", "exponential_decay_length_penalty"})
"""Those that change nothing without an end-of-sequence id."""


def in_default_order(config: GenerationConfig) -> list[tuple[str, Arguments]]:
    """Returns what the fields of a configuration switch on, in order, by name."""
    tables = (PROCESSORS, WARPERS, CLOSING) if config.do_sample else (PROCESSORS, CLOSING)
    active = [(name, read(config)) for table in tables for name, read in table.items()]
    return [(name, found) for name, found in active if found is not None]


def applied_processors(config: GenerationConfig) -> list[str]:
    """Names everything that is applied to a sequence's logits, in order."""
    first = [GUIDANCE] if config.guidance_scale != 1.0 else []
    if config.processors:
        return first + [spec.name for spec in config.processors]
    return first + [name for name, _ in in_default_order(config)]


def bad_words(
    words: tuple[tuple[int, ...], ...], eos_token_ids: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Returns the runs that are kept from being generated.

    Hugging Face leaves out single end-of-sequence ids, so that a list of words
    never keeps a sequence from ending.
    """
    ends = {(token_id,) for token_id in eos_token_ids}
    return [word for word in words if word not in ends]
