"""The reference: Hugging Face's own processors and warpers, in Hugging Face's order.

Whatever the fast path does not cover, or cannot decide exactly, is computed
here. Adding a warper: one line in `active_processors.py`, which has conditions
and order, and one in `_BUILDERS`.

V: ids of the sequence's revision.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
    WatermarkLogitsProcessor,
)

from model_service.active_processors import CLOSING, PROCESSORS, WARPERS, active, bad_words
from model_service.engine.sampling.guidance import GuidanceProcessor
from model_service.engine.sampling.own_processors import (
    AllowedTokensProcessor,
    ForcedPrefixProcessor,
    FrequencyPenaltyProcessor,
    PresencePenaltyProcessor,
)
from model_service.engine.sequence import Sequence

# Warpers that raise on a row without a distribution.
_NEEDS_DISTRIBUTION = (TopHLogitsWarper, EtaLogitsWarper)

_Builder = Callable[[Sequence], LogitsProcessor]

_BUILDERS: dict[str, _Builder] = {
    "guidance_scale": lambda s: GuidanceProcessor(s.config.guidance_scale, cast(Sequence, s.guide)),
    "sequence_bias": lambda s: SequenceBiasLogitsProcessor(
        [[list(ids), bias] for ids, bias in s.config.sequence_bias]
    ),
    "encoder_repetition_penalty": lambda s: EncoderRepetitionPenaltyLogitsProcessor(
        s.config.encoder_repetition_penalty, _prompt(s)
    ),
    "repetition_penalty": lambda s: RepetitionPenaltyLogitsProcessor(
        s.config.repetition_penalty, s.config.prompt_ignore_length
    ),
    "presence_penalty": lambda s: PresencePenaltyProcessor(
        s.config.presence_penalty, s.num_prompt_tokens
    ),
    "frequency_penalty": lambda s: FrequencyPenaltyProcessor(
        s.config.frequency_penalty, s.num_prompt_tokens
    ),
    "logit_bias": lambda s: SequenceBiasLogitsProcessor(
        [[[token_id], bias] for token_id, bias in s.config.logit_bias]
    ),
    "no_repeat_ngram_size": lambda s: NoRepeatNGramLogitsProcessor(s.config.no_repeat_ngram_size),
    # The prompt has no runs longer than itself, and the class takes memory for the length asked.
    "encoder_no_repeat_ngram_size": lambda s: EncoderNoRepeatNGramLogitsProcessor(
        min(s.config.encoder_no_repeat_ngram_size, s.num_prompt_tokens + 1), _prompt(s)
    ),
    "bad_words_ids": lambda s: NoBadWordsLogitsProcessor([list(w) for w in bad_words(s.config)]),
    "min_length": lambda s: MinLengthLogitsProcessor(s.config.min_length, _ends(s)),
    "min_new_tokens": lambda s: MinNewTokensLengthLogitsProcessor(
        s.num_prompt_tokens, s.config.min_new_tokens, _ends(s)
    ),
    "allowed_token_ids": lambda s: AllowedTokensProcessor(s.config.allowed_token_ids or ()),
    "forced_prefix": lambda s: ForcedPrefixProcessor(s.config.forced_prefix, s.num_prompt_tokens),
    "forced_bos_token_id": lambda s: ForcedBOSTokenLogitsProcessor(
        cast(int, s.config.forced_bos_token_id)
    ),
    "forced_eos_token_ids": lambda s: ForcedEOSTokenLogitsProcessor(
        s.length_limit, list(s.config.forced_eos_token_ids)
    ),
    "remove_invalid_values": lambda s: InfNanRemoveLogitsProcessor(),
    "exponential_decay_length_penalty": lambda s: ExponentialDecayLengthPenalty(
        s.config.exponential_decay_length_penalty or (0, 1.0), _ends(s), s.num_prompt_tokens
    ),
    "suppress_tokens": lambda s: SuppressTokensLogitsProcessor(s.config.suppress_tokens),
    "begin_suppress_tokens": lambda s: SuppressTokensAtBeginLogitsProcessor(
        s.config.begin_suppress_tokens, _begin(s)
    ),
    "temperature": lambda s: TemperatureLogitsWarper(s.config.temperature),
    "top_h": lambda s: TopHLogitsWarper(cast(float, s.config.top_h)),
    "top_k": lambda s: TopKLogitsWarper(s.config.top_k, min_tokens_to_keep=_keep(s)),
    "top_p": lambda s: TopPLogitsWarper(s.config.top_p, min_tokens_to_keep=_keep(s)),
    "min_p": lambda s: MinPLogitsWarper(s.config.min_p, min_tokens_to_keep=_keep(s)),
    "typical_p": lambda s: TypicalLogitsWarper(s.config.typical_p, min_tokens_to_keep=_keep(s)),
    "epsilon_cutoff": lambda s: EpsilonLogitsWarper(
        s.config.epsilon_cutoff, min_tokens_to_keep=_keep(s)
    ),
    "eta_cutoff": lambda s: EtaLogitsWarper(s.config.eta_cutoff, min_tokens_to_keep=_keep(s)),
    "green_list_watermark": lambda s: _watermark(s),
    "renormalize_logits": lambda s: LogitNormalization(),
}
"""How each processor is made, by its name in `active_processors.py`."""


def build(seq: Sequence, forbidden: tuple[int, ...]) -> LogitsProcessorList:
    """Builds the processors of a sequence.

    Args:
        seq: whose configuration.
        forbidden: ids of its revision that must not be generated.
    """
    built = LogitsProcessorList(_build_each(seq, active(seq.config, PROCESSORS)))
    if forbidden:  # behind all that could bring them back, before probabilities are compared
        built.append(SuppressTokensLogitsProcessor(list(forbidden)))
    built += _build_each(seq, active(seq.config, WARPERS))
    built += _build_each(seq, active(seq.config, CLOSING))
    return built


def scores(
    seq: Sequence, logits: Tensor, forbidden: tuple[int, ...], length: int | None = None
) -> Tensor:
    """Computes processed scores of a sequence's next token.

    Args:
        seq: the sequence, which keeps its processors for the next time.
        logits: `[V]` float32, not modified.
        forbidden: ids of its revision that must not be generated.
        length: tokens of the sequence that count as given; None means all.

    Returns:
        `[V]` float32, `-inf` where excluded. Where nothing is left, or a value is
        not a number, the rest of the processors may not have been applied.
    """
    if seq.processors is None:
        seq.processors = build(seq, forbidden)
    ids = torch.tensor([seq.token_ids[:length]], dtype=torch.int64)
    row = logits[None].to("cpu", copy=True)  # where the ids are, and small enough to move
    for processor in seq.processors:
        if isinstance(processor, _NEEDS_DISTRIBUTION) and not row.max().isfinite():
            break
        row = processor(cast(torch.LongTensor, ids), row)
    return row[0].to(logits.device)


def _build_each(seq: Sequence, names: Iterable[str]) -> list[LogitsProcessor]:
    return [_BUILDERS[name](seq) for name in names]


def _prompt(seq: Sequence) -> torch.LongTensor:
    """Returns the prompt, `[1, P]` int64."""
    prompt = torch.tensor([seq.token_ids[: seq.num_prompt_tokens]], dtype=torch.int64)
    return cast(torch.LongTensor, prompt)


def _ends(seq: Sequence) -> list[int]:
    """Returns the end-of-sequence ids that the sequence's revision has."""
    return [token_id for token_id in seq.config.eos_token_ids if token_id < seq.vocabulary_size]


def _keep(seq: Sequence) -> int:
    return seq.config.min_tokens_to_keep


def _begin(seq: Sequence) -> int:
    """Returns the length at which the first token that is not forced is chosen."""
    forced = seq.num_prompt_tokens == 1 and seq.config.forced_bos_token_id is not None
    return seq.num_prompt_tokens + forced


def _watermark(seq: Sequence) -> WatermarkLogitsProcessor:
    watermark = seq.config.green_list_watermark
    assert watermark is not None
    return WatermarkLogitsProcessor(
        seq.vocabulary_size,
        "cpu",
        greenlist_ratio=watermark.greenlist_ratio,
        bias=watermark.bias,
        hashing_key=watermark.hashing_key,
        seeding_scheme="selfhash" if watermark.self_hash else "lefthash",
        context_width=watermark.context_width,
    )
