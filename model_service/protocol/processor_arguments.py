"""Arguments of every processor and warper, typed: the one source of their ranges.

The JSON schemas that callers are told, the check of what they send and the
values that the engine builds from are all made of these. The summary of a class
is the description of its processor.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

_MOST_INT = 2**31 - 1
_MOST_KEY = 2**63 - 1

TokenId = Annotated[int, Meta(ge=0, le=_MOST_INT, extra_json_schema={"format": "token-id"})]
"""An id of the vocabulary. Ids of arguments are compared with the request's vocabulary by this
format."""

Count = Annotated[int, Meta(ge=0, le=_MOST_INT)]
Length = Annotated[int, Meta(ge=1, le=_MOST_INT)]
TokenIds = Annotated[tuple[TokenId, ...], Meta(min_length=1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Penalty = Annotated[float, Meta(gt=0, le=100)]

# Scores are float32, of at most 3.4e38. Logits of 1e5 (models stay below 1e4), a bias, both
# penalties and a temperature at the ends of these ranges make 1e9 * 1e6 * 1e6 * 1e10 = 1e31.
RunBias = Annotated[float, Meta(ge=-1e9, le=1e9)]
Repetition = Annotated[float, Meta(ge=1e-6, le=100)]
Share = Annotated[float, Meta(gt=0, le=1)]
Cutoff = Annotated[float, Meta(gt=0, lt=1)]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the arguments of a processor."""


class SequenceBiasEntry(Arguments, frozen=True):
    """A run of ids, and what is added to the score of its last one."""

    ids: TokenIds
    bias: RunBias


class SequenceBias(Arguments, frozen=True):
    """Adds to the score of the last id of a run when the ids before it match."""

    sequence_bias: Annotated[tuple[SequenceBiasEntry, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if len({entry.ids for entry in self.sequence_bias}) < len(self.sequence_bias):
            raise ValueError("a run is given twice")


class EncoderRepetitionPenalty(Arguments, frozen=True):
    """Multiplies positive and divides negative logits of ids of the prompt."""

    penalty: Repetition


class RepetitionPenalty(Arguments, frozen=True):
    """Divides positive and multiplies negative logits of ids already in the sequence."""

    penalty: Repetition
    prompt_ignore_length: Count = 0


class PresencePenalty(Arguments, frozen=True):
    """Subtracts from ids that were generated."""

    penalty: Bias


class FrequencyPenalty(Arguments, frozen=True):
    """Subtracts from ids that were generated, once per occurrence."""

    penalty: Bias


class LogitBiasEntry(Arguments, frozen=True):
    """An id, and what is added to its score."""

    token_id: TokenId
    bias: Bias


class LogitBias(Arguments, frozen=True):
    """Adds to the scores of single ids."""

    logit_bias: Annotated[tuple[LogitBiasEntry, ...], Meta(min_length=1, max_length=256)]

    def __post_init__(self) -> None:
        if len({entry.token_id for entry in self.logit_bias}) < len(self.logit_bias):
            raise ValueError("an id is given twice")


class NoRepeatNGramSize(Arguments, frozen=True):
    """Excludes ids that would repeat a run of the sequence."""

    ngram_size: Length


class EncoderNoRepeatNGramSize(Arguments, frozen=True):
    """Excludes ids that would repeat a run of the prompt."""

    ngram_size: Length


class BadWordsIds(Arguments, frozen=True):
    """Excludes the last id of a run when the ids before it match.

    Single end-of-sequence ids have no effect.
    """

    bad_words_ids: Annotated[tuple[TokenIds, ...], Meta(min_length=1, max_length=64)]


class MinLength(Arguments, frozen=True):
    """Excludes end-of-sequence ids until prompt and continuation have that length."""

    min_length: Count


class MinNewTokens(Arguments, frozen=True):
    """Excludes end-of-sequence ids until that many tokens were generated."""

    min_new_tokens: Count


class AllowedTokenIds(Arguments, frozen=True):
    """Excludes all ids but these."""

    token_ids: TokenIds


class ForcedPrefix(Arguments, frozen=True):
    """Makes the continuation begin with these ids."""

    token_ids: TokenIds


class ForcedBosTokenId(Arguments, frozen=True):
    """Makes this id follow a prompt of one token."""

    token_id: TokenId


class ForcedEosTokenIds(Arguments, frozen=True):
    """Makes one of these ids the last one that the length limit leaves room for."""

    token_ids: TokenIds


class RemoveInvalidValues(Arguments, frozen=True):
    """Replaces NaN by 0 and infinities by the largest finite numbers."""


class ExponentialDecayLengthPenalty(Arguments, frozen=True):
    """Raises the scores of end-of-sequence ids more with every token after a length."""

    start_index: Count
    decay_factor: Penalty


class SuppressTokens(Arguments, frozen=True):
    """Excludes ids."""

    token_ids: TokenIds


class BeginSuppressTokens(Arguments, frozen=True):
    """Excludes ids from the first generated token."""

    token_ids: TokenIds


class Temperature(Arguments, frozen=True):
    """Divides scores: below 1 sharpens the distribution, above 1 flattens it."""

    temperature: Annotated[float, Meta(ge=1e-10, le=1e6)]


class TopH(Arguments, frozen=True):
    """Keeps the highest-scored ids up to a share of the entropy."""

    top_h: Share


class TopK(Arguments, frozen=True):
    """Keeps the k highest scores and all ties of the k-th."""

    top_k: Length
    min_tokens_to_keep: Length = 1


class TopP(Arguments, frozen=True):
    """Keeps the smallest set of ids whose probability reaches top_p."""

    top_p: Annotated[float, Meta(ge=0, le=1)]
    min_tokens_to_keep: Length = 1


class MinP(Arguments, frozen=True):
    """Keeps ids at least min_p times as probable as the most probable one."""

    min_p: Share
    min_tokens_to_keep: Length = 1


class TypicalP(Arguments, frozen=True):
    """Keeps the ids of most typical probability up to a mass."""

    typical_p: Share
    min_tokens_to_keep: Length = 1


class EpsilonCutoff(Arguments, frozen=True):
    """Drops ids below a probability."""

    epsilon: Cutoff
    min_tokens_to_keep: Length = 1


class EtaCutoff(Arguments, frozen=True):
    """Drops ids below a probability that falls with the entropy."""

    epsilon: Cutoff
    min_tokens_to_keep: Length = 1


class GreenListWatermark(Arguments, frozen=True):
    """Adds to the scores of a share of the ids, chosen by a keyed hash of the tokens before.

    Kirchenbauer et al., "A Watermark for Large Language Models".
    """

    greenlist_ratio: Cutoff = 0.25
    """Share of green tokens."""

    bias: Bias = 2.0
    """Added to the scores of green tokens."""

    hashing_key: Annotated[int, Meta(ge=0, le=_MOST_KEY)] = 15485863
    """Key of the hash."""

    self_hash: bool = False
    """Whether the token to choose is part of the hash."""

    context_width: Length = 1
    """Number of tokens before it that are hashed."""


class SynthIdWatermark(Arguments, frozen=True):
    """Moves scores by a tournament between the ids, keyed by the generated tokens before.

    Dathathri et al., "Scalable watermarking for identifying large language model
    outputs". Excluded ids get the lowest finite score instead of `-inf`, as in
    Hugging Face.
    """

    ngram_len: Annotated[int, Meta(ge=2, le=256)]
    """Tokens that are hashed, the one to choose included."""

    keys: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=_MOST_KEY)], ...], Meta(min_length=1, max_length=64)
    ]
    """One key per depth of the tournament."""

    context_history_size: Annotated[int, Meta(ge=1, le=2**16)] = 1024
    """Contexts remembered: a repeated one is left alone."""

    sampling_table_seed: Annotated[int, Meta(ge=0, le=_MOST_KEY)] = 0
    """Seed of the table of coin flips."""

    sampling_table_size: Annotated[int, Meta(ge=1, le=2**20)] = 2**16
    """Entries of the table."""

    skip_first_ngram_calls: bool = False
    """Whether the first `ngram_len - 1` tokens are left alone."""


class RenormalizeLogits(Arguments, frozen=True):
    """Makes scores log-probabilities."""


BY_NAME: dict[str, type[Arguments]] = {
    "sequence_bias": SequenceBias,
    "encoder_repetition_penalty": EncoderRepetitionPenalty,
    "repetition_penalty": RepetitionPenalty,
    "presence_penalty": PresencePenalty,
    "frequency_penalty": FrequencyPenalty,
    "logit_bias": LogitBias,
    "no_repeat_ngram_size": NoRepeatNGramSize,
    "encoder_no_repeat_ngram_size": EncoderNoRepeatNGramSize,
    "bad_words_ids": BadWordsIds,
    "min_length": MinLength,
    "min_new_tokens": MinNewTokens,
    "allowed_token_ids": AllowedTokenIds,
    "forced_prefix": ForcedPrefix,
    "forced_bos_token_id": ForcedBosTokenId,
    "forced_eos_token_ids": ForcedEosTokenIds,
    "remove_invalid_values": RemoveInvalidValues,
    "exponential_decay_length_penalty": ExponentialDecayLengthPenalty,
    "suppress_tokens": SuppressTokens,
    "begin_suppress_tokens": BeginSuppressTokens,
    "temperature": Temperature,
    "top_h": TopH,
    "top_k": TopK,
    "top_p": TopP,
    "min_p": MinP,
    "typical_p": TypicalP,
    "epsilon_cutoff": EpsilonCutoff,
    "eta_cutoff": EtaCutoff,
    "green_list_watermark": GreenListWatermark,
    "synth_id_watermark": SynthIdWatermark,
    "renormalize_logits": RenormalizeLogits,
}
"""By name of the processor."""


def decode(arguments_json: str, arguments: type[Any]) -> Any:
    """Reads arguments that a caller wrote.

    Args:
        arguments_json: a JSON object; empty means no arguments.
        arguments: the class.

    Raises:
        msgspec.DecodeError: the text is not JSON, or does not fit the class.
    """
    return msgspec.json.decode(arguments_json or "{}", type=arguments)
