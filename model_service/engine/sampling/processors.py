"""The reference: Hugging Face's own processors and warpers, in Hugging Face's order or one given.

Whatever the fast path does not cover, or cannot decide exactly, is computed
here. A processor of ours is on, and has its place, by its row in `parameters.py`;
`processor_builders.py` makes it.

A processor is a function of the tokens so far and the scores, and nothing else:
rows are truncated, forked and asked again, so what it keeps between calls must
not change what it returns.

V: ids of the sequence's revision.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    EtaLogitsWarper,
    SuppressTokensLogitsProcessor,
    TopHLogitsWarper,
)

from model_service.engine.sampling.custom_processors import CustomProcessor
from model_service.engine.sampling.guidance import GuidanceProcessor
from model_service.engine.sampling.processor_builders import BUILDERS, Builder
from model_service.engine.sampling.processor_step import ProcessorStep
from model_service.engine.sampling.threads import one_thread
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol.generation import ProcessorTrace
from model_service.protocol.parameter import Stage
from model_service.protocol.parameters import CONFIG_PARAMETERS, PROCESSORS, GenerationConfig
from model_service.protocol.processor_arguments import Arguments, decode
from model_service.protocol.processor_order import GUIDANCE, NEED_ENDS, in_default_order

# Warpers that raise on a row without a distribution.
_NEEDS_DISTRIBUTION = (TopHLogitsWarper, EtaLogitsWarper)

_LATE = frozenset(row.name for row in PROCESSORS if row.stage is not Stage.PROCESSOR)

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
    return _custom[name].arguments if name in _custom else CONFIG_PARAMETERS[name].arguments


def _builder(name: str) -> Builder:
    return _custom[name].make if name in _custom else BUILDERS[name]


def _is_late(name: str | None) -> bool:
    """Whether a processor compares probabilities."""
    return name in _LATE or (name in _custom and _custom[name].warper)


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
