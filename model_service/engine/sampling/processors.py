"""The reference: Hugging Face's own processors and warpers, in Hugging Face's order or one given.

Whatever the fast path does not cover, or cannot decide exactly, is computed
here. Adding a warper: its arguments in `processor_arguments.py`, one line in
`active_processors.py`, which says when it is on and its place, and one in
`_BUILDERS`.

A processor is a function of the tokens so far and the scores, and nothing else:
rows are truncated, forked and asked again, so what it keeps between calls must
not change what it returns.

V: ids of the sequence's revision.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

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

from model_service.engine.sampling.custom_processors import CustomProcessor
from model_service.engine.sampling.guidance import GuidanceProcessor
from model_service.engine.sampling.own_processors import (
    AllowedTokensProcessor,
    ForcedPrefixProcessor,
    FrequencyPenaltyProcessor,
    PresencePenaltyProcessor,
)
from model_service.engine.sampling.processor_step import ProcessorStep
from model_service.engine.sampling.row import Row
from model_service.engine.sampling.synth_id import SynthIdWatermarkProcessor
from model_service.engine.sampling.threads import one_thread
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.generation import GenerationConfig, ProcessorTrace
from model_service.protocol.processor_arguments import BY_NAME, Arguments, decode
from model_service.protocol.processor_order import (
    CLOSING,
    GUIDANCE,
    NEED_ENDS,
    WARPERS,
    bad_words,
    in_default_order,
)

# Warpers that raise on a row without a distribution.
_NEEDS_DISTRIBUTION = (TopHLogitsWarper, EtaLogitsWarper)

Builder = Callable[[Any, Row], LogitsProcessor]

_BUILDERS: dict[str, Builder] = {
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


_custom: dict[str, CustomProcessor] = {}
"""Those that the operator added, by name: set once, at start."""


def offer(added: Iterable[CustomProcessor]) -> None:
    """Makes processors of the operator's available to every sequence to come."""
    _custom.clear()
    _custom.update((processor.name, processor) for processor in added)


def build(seq: Sequence, forbidden: tuple[int, ...]) -> list[ProcessorStep]:
    """Builds the processors of a sequence.

    Args:
        seq: whose configuration.
        forbidden: ids of its revision that must not be generated.
    """
    row = seq.for_processors()
    guidance = (
        [ProcessorStep(GUIDANCE, GuidanceProcessor(seq.config.guidance_scale, seq.guide))]
        if seq.guide
        else []
    )
    steps = guidance + [
        ProcessorStep(name, _builder(name)(arguments, row))
        for name, arguments in _arguments(seq.config)
        if row.eos_token_ids or name not in NEED_ENDS
    ]
    if not forbidden:
        return steps
    keep_out = ProcessorStep(None, SuppressTokensLogitsProcessor(list(forbidden)))
    # Before probabilities are compared, and again behind all that could bring them back.
    late = (index for index, step in enumerate(steps) if _is_late(step.name))
    first = next(late, len(steps))
    return [*steps[:first], keep_out, *steps[first:], *([keep_out] if first < len(steps) else [])]


def _arguments(config: GenerationConfig) -> list[tuple[str, Any]]:
    if not config.processors:
        return list(in_default_order(config))
    return [
        (spec.name, decode(spec.arguments_json, _type(spec.name))) for spec in config.processors
    ]


def _type(name: str) -> type[Arguments]:
    return _custom[name].arguments if name in _custom else BY_NAME[name]


def _builder(name: str) -> Builder:
    return _custom[name].make if name in _custom else _BUILDERS[name]


def _is_late(name: str | None) -> bool:
    """Whether a processor compares probabilities."""
    return name in WARPERS or name in CLOSING or (name in _custom and _custom[name].warper)


@one_thread()
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
        `[V]` float32 on the CPU, `-inf` where excluded. Where nothing is left, or a value is
        not a number, the rest of the processors may not have been applied.

    Raises:
        ProcessorError: a processor failed.
    """
    processed = logits.cpu()
    for _, after in _apply(seq, logits, forbidden, length):
        processed = after
    return processed


@one_thread()
def trace(
    seq: Sequence,
    logits: Tensor,
    forbidden: tuple[int, ...],
    token_id: int,
    length: int | None = None,
) -> list[ProcessorTrace]:
    """Computes the score of one id after each processor, in order; as `scores` otherwise.

    Excluding forbidden ids is not a processor here: it counts as part of the
    processor before it, or of the first one.

    Args:
        seq: as in `scores`.
        logits: `[V]` float32, as in `scores`.
        forbidden: as in `scores`.
        token_id: the id.
        length: as in `scores`.
    """
    traced: list[ProcessorTrace] = []
    for name, processed in _apply(seq, logits, forbidden, length):
        score = float(processed[token_id])
        if name is not None:
            traced.append(ProcessorTrace(name, score))
        elif traced:
            traced[-1] = ProcessorTrace(traced[-1].processor, score)
    return traced


class ProcessorError(RuntimeError):
    """A processor failed: a bug of ours, of Hugging Face's, or of the operator's."""


def _apply(
    seq: Sequence, logits: Tensor, forbidden: tuple[int, ...], length: int | None
) -> Iterator[tuple[str | None, Tensor]]:
    """Yields the name of each processor and the scores after it, `[V]` float32 on the CPU."""
    try:
        if seq.processors is None:
            seq.processors = build(seq, forbidden)
    except Exception as error:
        raise ProcessorError("a processor could not be built") from error
    ids = cast(torch.LongTensor, torch.tensor([seq.token_ids[:length]], dtype=torch.int64))
    row = logits[None].to("cpu", copy=True)  # where the ids are, and small enough to move
    if seq.kind == "beam":
        row = row.log_softmax(-1)  # sums of scores compare sequences
        yield None, row[0]
    for step in seq.processors:
        if isinstance(step.apply, _NEEDS_DISTRIBUTION) and not row.max().isfinite():
            break
        try:
            row = step.apply(ids, row)
        except Exception as error:
            raise ProcessorError(f"{step.name} failed") from error
        yield step.name, row[0]
