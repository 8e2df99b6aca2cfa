"""Sequences that run to their ends."""

import msgspec

from model_service.protocol.calls import Failure, Request, Response
from model_service.protocol.generation import FinishReason, PositionScores, ScoreSelection
from model_service.protocol.parameters import GenerationConfig


class SequenceSpec(msgspec.Struct, frozen=True, array_like=True):
    """One row to run."""

    prompt_token_ids: list[int]
    """At least one id, each in [0, vocabulary size of the revision)."""

    seed: int
    """Seed of this row's draws, [0, 2^63). Equal seeds draw equally in any row of any call."""

    max_new_tokens: int | None = None
    """Upper bound on this row's new tokens; None means the configuration's."""

    num_padding: int = 0
    """Padding that the prompt came with, as far as lengths count it."""

    num_prompt_tokens: int | None = None
    """Leading ids that count as the prompt; None means all. The others are given, and count as
    generated. Sessions only."""

    @property
    def prompt_length(self) -> int:
        """Leading ids that count as the prompt."""
        whole = len(self.prompt_token_ids)
        return whole if self.num_prompt_tokens is None else self.num_prompt_tokens


class Finish(msgspec.Struct, frozen=True):
    """How a sequence ended, and where its time went."""

    reason: FinishReason
    failure: Failure | None = None
    """Set for reason `error`."""

    stop_string: str = ""
    """Set for reason `stop_string`."""

    sequence_score: float | None = None
    """Score of the sequence, set by beam search."""

    beam_indices: list[int] = []
    """Beam that each token came from, set by beam search."""

    cached_prompt_tokens: int = 0
    """Prompt tokens whose KV cache was reused."""

    steps: int = 0
    """Steps that the sequence took part in."""

    queue_s: float = 0.0
    """From arrival to the first prefill step."""

    prefill_s: float = 0.0
    """From the first prefill step to the first token."""

    decode_s: float = 0.0
    """From the first token to the last."""


class SequenceTokens(Response, tag="tokens"):
    """New tokens of one row of a `Generate`."""

    row: int
    """Index in `Generate.sequences`."""

    token_ids: list[int]
    scores: list[PositionScores] = msgspec.field(default_factory=list)
    """One per token, when asked for."""

    prompt_scores: list[PositionScores] = msgspec.field(default_factory=list)
    """With the first token only, when asked for."""

    finish: Finish | None = None
    """Set with the last event of the row. Nothing follows it."""


class Generate(Request[SequenceTokens], tag="generate"):
    """Runs sequences to their end. Answered by `SequenceTokens` until each has finished."""

    sequences: list[SequenceSpec]
    config: GenerationConfig
    revision: int
    """Vocabulary revision whose ids the sequences see."""

    selection: ScoreSelection | None = None
    """What to return about each generated token."""

    prompt_selection: ScoreSelection | None = None
    """What to return about each prompt token."""

    priority: int = 0
    """Lower goes first."""

    sequences_per_prompt: int = 1
    """Neighbors among the sequences that have the same prompt: the results of one beam search."""

    cache_salt: str | None = None
    """Prompts of equal salts may reuse each other's KV cache. None: no reuse."""

    @property
    def num_sequences(self) -> int:
        """One for each that was asked for."""
        return len(self.sequences)

    @property
    def num_rows(self) -> int:
        """Rows of a step that the sequences take: all beams, and the guides of guided ones."""
        num_beams = self.config.num_beams
        if num_beams > 1:
            return len(self.sequences) // self.sequences_per_prompt * num_beams
        return len(self.sequences) * (1 if self.config.guidance_scale == 1.0 else 2)
