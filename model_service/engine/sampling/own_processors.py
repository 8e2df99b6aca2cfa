"""Processors that Hugging Face does not have, in the form of its own.

L: tokens so far, V: ids of the sequence's revision.
"""

import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessor


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
    """Excludes all ids but those of a list."""

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
