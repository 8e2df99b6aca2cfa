"""How each processor is made: Hugging Face's own classes, and our own in the same form.

L: tokens so far, V: ids of the sequence's revision.
"""

from collections.abc import Callable
from typing import Any

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

from model_service.engine.sampling.row import Row
from model_service.engine.sampling.synth_id import SynthIdWatermarkProcessor
from model_service.protocol.processor_arguments import bad_words

Builder = Callable[[Any, Row], LogitsProcessor]


class PresencePenaltyProcessor(LogitsProcessor):
    """Subtracts a constant from tokens that were generated."""

    def __init__(self, penalty: float, prompt_length: int) -> None:
        """Takes the penalty and the number of leading tokens that were given."""
        self._penalty = penalty
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        generated = torch.unique(input_ids[0, self._prompt_length :])
        penalized = scores.clone()
        penalized[0, generated] -= self._penalty
        return penalized


class FrequencyPenaltyProcessor(LogitsProcessor):
    """Subtracts a constant from tokens that were generated, once per occurrence."""

    def __init__(self, penalty: float, prompt_length: int) -> None:
        """Takes the penalty and the number of leading tokens that were given."""
        self._penalty = penalty
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        generated, counts = torch.unique(input_ids[0, self._prompt_length :], return_counts=True)
        penalized = scores.clone()
        penalized[0, generated] -= self._penalty * counts
        return penalized


class AllowedTokensProcessor(LogitsProcessor):
    """Excludes all ids except the ids of a list."""

    def __init__(self, allowed: tuple[int, ...]) -> None:
        """Takes the ids."""
        self._allowed = list(allowed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        kept = torch.full_like(scores, -torch.inf)
        kept[:, self._allowed] = scores[:, self._allowed]
        return kept


class ForcedPrefixProcessor(LogitsProcessor):
    """Leaves one id for each of the first generated tokens, as forced tokens do: score 0."""

    def __init__(self, prefix: tuple[int, ...], prompt_length: int) -> None:
        """Takes the ids and the number of leading tokens that were given."""
        self._prefix = prefix
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        index = input_ids.shape[-1] - self._prompt_length
        if not 0 <= index < len(self._prefix):
            return scores
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._prefix[index]] = 0.0
        return forced


class TopNSigmaWarper(LogitsProcessor):
    """Keeps ids whose score is within n standard deviations of the highest one.

    Tang et al., "Top-n-sigma: Eliminating Noise in Logit Space for Robust Token
    Sampling of LLM". The deviation is that of all finite scores, in float64.
    """

    def __init__(self, n: float, min_tokens_to_keep: int) -> None:
        """Takes the number of deviations, and how many ids are kept at least, ties included."""
        self._n = n
        self._min_tokens_to_keep = min_tokens_to_keep

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        values = scores.double()
        if not values.max().isfinite():  # no distribution, and none after it either
            return scores
        below = values - values.max()
        deviation = values[values.isfinite()].std(correction=0)
        lowest = scores.topk(min(self._min_tokens_to_keep, scores.shape[-1])).values[:, -1:]
        return scores.masked_fill((below < -self._n * deviation) & (scores < lowest), -torch.inf)


BUILDERS: dict[str, Builder] = {
    "sequence_bias": lambda a, _: SequenceBiasLogitsProcessor(
        [[list(entry.ids), entry.bias] for entry in a.sequence_bias]
    ),
    "encoder_repetition_penalty": lambda a, row: EncoderRepetitionPenaltyLogitsProcessor(
        a.penalty, row.prompt
    ),
    "repetition_penalty": lambda a, _: RepetitionPenaltyLogitsProcessor(
        a.penalty, a.prompt_ignore_length
    ),
    "presence_penalty": lambda a, row: PresencePenaltyProcessor(a.penalty, row.prompt_length),
    "frequency_penalty": lambda a, row: FrequencyPenaltyProcessor(a.penalty, row.prompt_length),
    "logit_bias": lambda a, _: SequenceBiasLogitsProcessor(
        [[[entry.token_id], entry.bias] for entry in a.logit_bias]
    ),
    "no_repeat_ngram_size": lambda a, _: NoRepeatNGramLogitsProcessor(a.ngram_size),
    # The prompt has no runs longer than itself, and the class takes memory for the length asked.
    "encoder_no_repeat_ngram_size": lambda a, row: EncoderNoRepeatNGramLogitsProcessor(
        min(a.ngram_size, row.prompt_length + 1), row.prompt
    ),
    "bad_words_ids": lambda a, row: NoBadWordsLogitsProcessor(
        [list(word) for word in bad_words(a.bad_words_ids, row.eos_token_ids)]
    ),
    "min_length": lambda a, row: MinLengthLogitsProcessor(a.min_length, list(row.eos_token_ids)),
    "min_new_tokens": lambda a, row: MinNewTokensLengthLogitsProcessor(
        row.prompt_length, a.min_new_tokens, list(row.eos_token_ids)
    ),
    "allowed_token_ids": lambda a, _: AllowedTokensProcessor(a.token_ids),
    "forced_prefix": lambda a, row: ForcedPrefixProcessor(a.token_ids, row.prompt_length),
    "forced_bos_token_id": lambda a, _: ForcedBOSTokenLogitsProcessor(a.token_id),
    "forced_eos_token_ids": lambda a, row: ForcedEOSTokenLogitsProcessor(
        row.length_limit, list(a.token_ids)
    ),
    "remove_invalid_values": lambda _, __: InfNanRemoveLogitsProcessor(),
    "exponential_decay_length_penalty": lambda a, row: ExponentialDecayLengthPenalty(
        (a.start_index, a.decay_factor), list(row.eos_token_ids), row.prompt_length
    ),
    "suppress_tokens": lambda a, _: SuppressTokensLogitsProcessor(a.token_ids),
    "begin_suppress_tokens": lambda a, row: SuppressTokensAtBeginLogitsProcessor(
        a.token_ids, row.begin
    ),
    "temperature": lambda a, _: TemperatureLogitsWarper(a.temperature),
    "top_n_sigma": lambda a, _: TopNSigmaWarper(a.top_n_sigma, a.min_tokens_to_keep),
    "top_h": lambda a, _: TopHLogitsWarper(a.top_h),
    "top_k": lambda a, _: TopKLogitsWarper(a.top_k, min_tokens_to_keep=a.min_tokens_to_keep),
    "top_p": lambda a, _: TopPLogitsWarper(a.top_p, min_tokens_to_keep=a.min_tokens_to_keep),
    "min_p": lambda a, _: MinPLogitsWarper(a.min_p, min_tokens_to_keep=a.min_tokens_to_keep),
    "typical_p": lambda a, _: TypicalLogitsWarper(
        a.typical_p, min_tokens_to_keep=a.min_tokens_to_keep
    ),
    "epsilon_cutoff": lambda a, _: EpsilonLogitsWarper(
        a.epsilon, min_tokens_to_keep=a.min_tokens_to_keep
    ),
    "eta_cutoff": lambda a, _: EtaLogitsWarper(a.epsilon, min_tokens_to_keep=a.min_tokens_to_keep),
    "green_list_watermark": lambda a, row: WatermarkLogitsProcessor(
        row.vocabulary_size,
        "cpu",
        greenlist_ratio=a.greenlist_ratio,
        bias=a.bias,
        hashing_key=a.hashing_key,
        seeding_scheme="selfhash" if a.self_hash else "lefthash",
        context_width=a.context_width,
    ),
    "synth_id_watermark": lambda a, row: SynthIdWatermarkProcessor(a, row.prompt_length),
    "renormalize_logits": lambda _, __: LogitNormalization(),
}
"""How each processor is made of its arguments and its row, by its name."""
