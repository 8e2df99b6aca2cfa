"""The reference: Hugging Face's own processors and warpers, in Hugging Face's order.

Whatever the fast path does not cover, or cannot decide exactly, is computed
here. Adding a warper starts here: one line in `build`, at its place in the
order of `GenerationMixin._get_logits_processor`.

V: ids of the sequence's revision.
"""

from typing import cast

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model_service.engine.sequence import Sequence


def build(seq: Sequence, forbidden: tuple[int, ...]) -> LogitsProcessorList:
    """Builds the processors of a sequence.

    Args:
        seq: whose configuration.
        forbidden: ids of its revision that must not be generated.
    """
    config = seq.config
    built = LogitsProcessorList()
    if config.repetition_penalty != 1.0:
        built.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.min_new_tokens > 0 and config.eos_token_ids:
        built.append(
            MinNewTokensLengthLogitsProcessor(
                seq.num_prompt_tokens, config.min_new_tokens, list(config.eos_token_ids)
            )
        )
    if forbidden:
        built.append(SuppressTokensLogitsProcessor(list(forbidden)))
    if config.do_sample:
        keep = config.min_tokens_to_keep
        if config.temperature != 1.0:
            built.append(TemperatureLogitsWarper(config.temperature))
        if config.top_k != 0:
            built.append(TopKLogitsWarper(top_k=config.top_k, min_tokens_to_keep=keep))
        if config.top_p < 1.0:
            built.append(TopPLogitsWarper(top_p=config.top_p, min_tokens_to_keep=keep))
    return built


def scores(
    seq: Sequence, logits: Tensor, forbidden: tuple[int, ...], length: int | None = None
) -> Tensor:
    """Computes processed scores of a sequence's next token.

    Args:
        seq: the sequence.
        logits: `[V]` float32, not modified.
        forbidden: ids of its revision that must not be generated.
        length: tokens of the sequence that count as given; None means all.

    Returns:
        `[V]` float32, `-inf` where excluded.
    """
    ids = torch.tensor([seq.token_ids[:length]], dtype=torch.int64, device=logits.device)
    return build(seq, forbidden)(cast(torch.LongTensor, ids), logits[None].clone())[0]
