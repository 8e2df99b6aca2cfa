"""What a processor may know about the sequence that it is built for."""

from dataclasses import dataclass
from typing import cast

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence, as its processors see it. The tokens so far come with every call.

    Attributes:
        prompt_token_ids: the tokens that were given.
        eos_token_ids: end-of-sequence ids that the sequence's revision has.
        vocabulary_size: ids of the sequence's revision, the width of its scores.
        length_limit: tokens of the prompt and the longest continuation.
        first_is_forced: whether the token after a prompt of one is forced.
    """

    prompt_token_ids: tuple[int, ...]
    eos_token_ids: tuple[int, ...]
    vocabulary_size: int
    length_limit: int
    first_is_forced: bool

    @property
    def prompt_length(self) -> int:
        """Number of tokens that were given."""
        return len(self.prompt_token_ids)

    @property
    def begin(self) -> int:
        """Length at which the first token that is not forced is chosen."""
        return self.prompt_length + (self.prompt_length == 1 and self.first_is_forced)

    @property
    def prompt(self) -> torch.LongTensor:
        """The tokens that were given, `[1, P]` int64."""
        ids = torch.tensor([self.prompt_token_ids], dtype=torch.int64)
        return cast(torch.LongTensor, ids)
