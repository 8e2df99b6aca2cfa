"""The reference: Hugging Face's own processors and warpers, in Hugging Face's order or one given.

Whatever the fast path does not cover, or cannot decide exactly, is computed
here. A processor of ours is on, and has its place, by its row in `parameters.py`;
`processor_builders.py` makes it.

A processor is a function of the tokens so far and the scores, and nothing else:
rows are truncated, forked and asked again, so what it keeps between calls must
not change what it returns.

V: ids of the sequence's revision.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    EtaLogitsWarper,
    SuppressTokensLogitsProcessor,
    TopHLogitsWarper,
)

from model_service.engine.sampling.choosing import Choosing, ProcessorStep
from model_service.engine.sampling.guidance import guided
from model_service.engine.sampling.processor_builders import BUILDERS
from model_service.engine.sampling.threads import one_thread
from model_service.protocol.generation import ProcessorTrace
from model_service.protocol.parameter import Stage
from model_service.protocol.parameters import CONFIG_PARAMETERS, PROCESSORS
from model_service.protocol.processor_arguments import decode
from model_service.protocol.processor_order import GUIDANCE, NEED_ENDS, in_default_order

# Warpers that raise on a row without a distribution.
_NEEDS_DISTRIBUTION = (TopHLogitsWarper, EtaLogitsWarper)

_LATE = frozenset(row.name for row in PROCESSORS if row.stage is not Stage.PROCESSOR)


def build(choosing: Choosing) -> list[ProcessorStep]:
    """Builds the processors of a row."""
    row, custom = choosing.for_processors(), choosing.custom
    steps = [
        ProcessorStep(name, (custom[name].make if name in custom else BUILDERS[name])(given, row))
        for name, given in _arguments(choosing)
        if row.eos_token_ids or name not in NEED_ENDS
    ]
    if not choosing.revision.forbidden:
        return steps
    keep_out = ProcessorStep(None, SuppressTokensLogitsProcessor(list(choosing.revision.forbidden)))
    # Before probabilities are compared, and again behind all that could bring them back.
    late = _LATE | {name for name, added in custom.items() if added.warper}
    first = next((index for index, step in enumerate(steps) if step.name in late), len(steps))
    return [*steps[:first], keep_out, *steps[first:], *([keep_out] if first < len(steps) else [])]


def _arguments(choosing: Choosing) -> Iterator[tuple[str, Any]]:
    """Yields the processors that are asked for, by name, with their arguments, in order."""
    config, custom = choosing.config, choosing.custom
    if not config.processors:
        yield from in_default_order(config)
    for spec in config.processors:
        known = custom[spec.name] if spec.name in custom else CONFIG_PARAMETERS[spec.name]
        yield spec.name, decode(spec.arguments_json, known.arguments)


@one_thread()
def scores(
    choosing: Choosing,
    token_ids: list[int],
    logits: Tensor,
    guide_logits: Tensor | None = None,
) -> Tensor:
    """Computes the processed scores of a row's next token.

    Args:
        choosing: how tokens are chosen; keeps the processors for the next time.
        token_ids: the tokens before it.
        logits: `[V]` float32, not modified.
        guide_logits: `[W]` float32 of the same token after the negative prompt, if any.

    Returns:
        `[V]` float32 on the CPU, `-inf` where excluded. Where nothing is left, or a value is
        not a number, the rest of the processors may not have been applied.

    Raises:
        ProcessorError: a processor failed.
    """
    processed = logits.cpu()
    for _, after in _apply(choosing, token_ids, logits, guide_logits):
        processed = after
    return processed


@one_thread()
def trace(
    choosing: Choosing,
    token_ids: list[int],
    logits: Tensor,
    token_id: int | None,
    guide_logits: Tensor | None = None,
    *,
    selected: Sequence[int] = (),
    logsumexp: bool = False,
) -> list[ProcessorTrace]:
    """Computes scores of single ids after each processor, in order; as `scores` otherwise.

    Excluding forbidden ids is not a processor here: it counts as part of the
    processor before it, or of the first one.

    Args:
        choosing: as in `scores`.
        token_ids: as in `scores`.
        logits: `[V]` float32, as in `scores`.
        token_id: the id that was chosen, if any.
        guide_logits: as in `scores`.
        selected: other ids.
        logsumexp: whether log-sum-exp of all scores is wanted too.

    Raises:
        ProcessorError: a processor failed.
    """
    traced: list[ProcessorTrace] = []
    for name, processed in _apply(choosing, token_ids, logits, guide_logits):
        if name is None and not traced:
            continue
        entry = ProcessorTrace(
            name or traced.pop().processor,
            None if token_id is None else float(processed[token_id]),
            float(processed.double().logsumexp(-1)) if logsumexp else None,
            processed[list(selected)].tolist(),
        )
        traced.append(entry)
    return traced


class ProcessorError(RuntimeError):
    """A processor failed: a bug of ours, of Hugging Face's, or of the operator's."""


def _apply(
    choosing: Choosing, token_ids: list[int], logits: Tensor, guide_logits: Tensor | None
) -> Iterator[tuple[str | None, Tensor]]:
    """Yields the name of each processor and the scores after it, `[V]` float32 on the CPU."""
    try:
        if choosing.processors is None:
            choosing.processors = build(choosing)
    except Exception as error:
        raise ProcessorError("a processor could not be built") from error
    ids = cast(torch.LongTensor, torch.tensor([token_ids], dtype=torch.int64))
    row = logits[None].to("cpu", copy=True)  # where the ids are, and small enough to move
    if choosing.searches:
        row = row.log_softmax(-1)  # sums of scores compare sequences
        yield None, row[0]
    if guide_logits is not None:
        row = guided(row, guide_logits, choosing.config.guidance_scale)
        yield GUIDANCE, row[0]
    for step in choosing.processors:
        if isinstance(step.apply, _NEEDS_DISTRIBUTION) and not row.max().isfinite():
            break
        try:
            row = step.apply(ids, row)
        except Exception as error:
            raise ProcessorError(f"{step.name} failed") from error
        yield step.name, row[0]
