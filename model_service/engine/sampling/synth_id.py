"""The SynthID watermark as a function of the tokens so far.

Hugging Face's processor remembers what it was called with, one call per token.
Rows here are truncated, forked, looked ahead with and asked again, so what it
would remember is computed from the tokens instead, before every call. The rest
is theirs.

G: generated tokens, N: length of what is hashed, the token to choose included.
"""

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    SynthIDTextWatermarkLogitsProcessor,
    SynthIDTextWatermarkState,
)

from model_service.protocol.processor_arguments import SynthIdWatermark

CACHED_TABLES = 8


class SynthIdWatermarkProcessor(SynthIDTextWatermarkLogitsProcessor):
    """Hugging Face's processor, without memory."""

    def __init__(self, arguments: SynthIdWatermark, prompt_length: int) -> None:
        """Takes the arguments and the number of leading tokens that were given."""
        super().__init__(
            ngram_len=arguments.ngram_len,
            keys=list(arguments.keys),
            sampling_table_size=1,  # theirs takes eight times the memory
            sampling_table_seed=0,
            context_history_size=arguments.context_history_size,
            device=torch.device("cpu"),
            skip_first_ngram_calls=arguments.skip_first_ngram_calls,
        )
        self.sampling_table = _table(arguments.sampling_table_size, arguments.sampling_table_seed)
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        self.state: Any = self._state(input_ids[0, self._prompt_length :])
        watermarked: Tensor = super().__call__(input_ids, scores)
        return watermarked

    def _state(self, generated: Tensor) -> SynthIDTextWatermarkState | None:
        """Returns what one call per token in `generated`, `[G]` int64, leaves behind."""
        num_calls = len(generated)
        if num_calls == 0:
            return None
        state = SynthIDTextWatermarkState(
            1, self.ngram_len, self.context_history_size, torch.device("cpu")
        )
        # The first call has seen no token, and each one sees one more; zeros stand before them.
        padded = torch.cat((state.context[0], generated[:-1]))
        contexts = padded.unfold(0, self.ngram_len - 1, 1)  # [G, N - 1]
        state.context = contexts[-1:]
        state.num_calls = num_calls
        first = self.ngram_len - 1 if self.skip_first_ngram_calls else 0
        remembered = contexts[max(first, num_calls - self.context_history_size) :]
        start = cast(torch.LongTensor, torch.ones(len(remembered), dtype=torch.int64))
        hashes = self.accumulate_hash(start, cast(torch.LongTensor, remembered))
        state.context_history[0, : len(hashes)] = hashes.flip(0)  # newest first
        return state


@lru_cache(maxsize=CACHED_TABLES)
def _table(size: int, seed: int) -> Tensor:
    """Returns Hugging Face's table of coin flips, `[size]` uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (size,), generator=generator).to(torch.uint8)
