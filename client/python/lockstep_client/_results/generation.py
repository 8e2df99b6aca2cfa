"""Results of a generation.

B is the number of sequences (prompts times sequences per prompt), T the length
of the longest one, V the size of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from lockstep.v1 import generation_pb2 as generation_pb

from lockstep_client._results.determinism import Determinism
from lockstep_client._results.reading import read
from lockstep_client._results.scores import PositionScores
from lockstep_client._values import durations, enums, html
from lockstep_client._values.one_line import one_line
from lockstep_client._values.tensors import Array
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import LockstepError, WrongValue


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of one call.

    Attributes:
        prompt_token_count: prompt tokens, padding not counted.
        cached_prompt_token_count: of these, tokens whose KV cache was reused.
        completion_token_count: tokens generated, over all sequences.
        step_count: steps that the call took part in.
    """

    prompt_token_count: int = 0
    cached_prompt_token_count: int = 0
    completion_token_count: int = 0
    step_count: int = 0

    @classmethod
    def from_message(cls, message: generation_pb.Usage) -> Self:
        """Reads the wire form."""
        return read(cls, message)


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one call went on the server, in seconds.

    Attributes:
        queue_s: waiting for a place in the batch.
        prefill_s: from the first prefill step to the first token.
        decode_s: from the first token to the last.
        total_s: from arrival to the end.
    """

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0

    @classmethod
    def from_message(cls, message: generation_pb.Timing) -> Self:
        """Reads the wire form."""
        return cls(
            durations.seconds(message.queue_duration),
            durations.seconds(message.prefill_duration),
            durations.seconds(message.decode_duration),
            durations.seconds(message.total_duration),
        )


@dataclass(frozen=True, slots=True, eq=False)
class TokenDelta:
    """New tokens of one sequence.

    Attributes:
        prompt_index: index of the prompt in the request.
        sequence_index: index among the sequences of that prompt.
        token_ids: the new ids.
        scores: what was asked for about them, one per id.
        prompt_scores: what was asked for about the prompt, with the first token.
    """

    prompt_index: int
    sequence_index: int
    token_ids: tuple[int, ...]
    scores: tuple[PositionScores, ...] = ()
    prompt_scores: tuple[PositionScores, ...] = ()

    __repr__ = one_line


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedSequence:
    """One finished sequence.

    Attributes:
        prompt_index: index of the prompt in the request.
        sequence_index: index among the sequences of that prompt.
        token_ids: generated ids, without the prompt; a stop token is included.
        finish_reason: why it ended: `eos_token`, `stop_token`, `stop_string`,
            `stop_sequence`, `max_new_tokens`, `context_length`, `time_limit` or
            `error`.
        seed: reproduces this sequence with its prompt and configuration.
        scores: what was asked for about each generated token.
        prompt_scores: what was asked for about the prompt's tokens.
        stop_string: the stop string that was matched.
        sequence_score: beam score; None without beam search.
        beam_indices: beam that each token came from.
        error: why this sequence failed; others may not have.
    """

    prompt_index: int
    sequence_index: int
    token_ids: tuple[int, ...]
    finish_reason: str
    seed: int
    scores: tuple[PositionScores, ...] = ()
    prompt_scores: tuple[PositionScores, ...] = ()
    stop_string: str = ""
    sequence_score: float | None = None
    beam_indices: tuple[int, ...] = ()
    error: LockstepError | None = None

    __repr__ = one_line


@dataclass(frozen=True, eq=False)
class Generation:
    """All sequences of one call, by prompt and then by index.

    Attributes:
        details: everything about each sequence.
        effective_config: the configuration that was used, every field resolved.
        applied_processors: the processors that were applied, in order.
        vocabulary: the vocabulary that was used.
        usage: counts.
        timing: times on the server.
        determinism: how far the result can be reproduced.
        session_id: the session that holds the sequences, where one was asked for.
        prompts: ids of each prompt, without padding; empty where a session goes on.
    """

    details: tuple[GeneratedSequence, ...]
    effective_config: dict[str, Any] = field(repr=False)
    applied_processors: tuple[str, ...]
    vocabulary: VocabularyRef
    usage: Usage
    timing: Timing
    determinism: Determinism
    session_id: str = ""
    prompts: tuple[tuple[int, ...], ...] = field(default=(), repr=False)

    __repr__ = one_line

    @property
    def sequences(self) -> list[list[int]]:
        """Generated ids of each sequence, without the prompt; a stop token is included."""
        return [list(sequence.token_ids) for sequence in self.details]

    @property
    def full_sequences(self) -> list[list[int]]:
        """Prompt and generated ids of each sequence: `sequences` of Hugging Face, without padding.

        Raises:
            WrongValue: a session went on, which has the prompts: see its `token_ids()`.
        """
        if not self.prompts:
            raise WrongValue("A session went on, and has the prompts: ask for its token_ids().")
        return [[*self.prompts[each.prompt_index], *each.token_ids] for each in self.details]

    @property
    def finish_reasons(self) -> list[str]:
        """Why each sequence ended, see `GeneratedSequence.finish_reason`."""
        return [sequence.finish_reason for sequence in self.details]

    @property
    def seeds(self) -> list[int]:
        """Seed of each sequence."""
        return [sequence.seed for sequence in self.details]

    @cached_property
    def logits(self) -> Array | None:
        """`[B, T, V]` raw logits, float32 or the type asked for; None unless asked for.

        Places after the end of a shorter sequence are NaN.

        `logits[b, t]` is the distribution from which `sequences[b][t]` was drawn.
        """
        return stack([[p.logits for p in sequence.scores] for sequence in self.details])

    @cached_property
    def scores(self) -> Array | None:
        """`[B, T, V]` processed scores, aligned as `logits`; None unless asked for.

        Excluded ids are `-inf`; places after the end of a sequence are NaN; typed as the logits.
        """
        return stack([[p.scores for p in sequence.scores] for sequence in self.details])

    def raise_for_errors(self) -> Self:
        """Returns self if no sequence has failed.

        Raises:
            LockstepError: the error of the first sequence that failed.
        """
        for sequence in self.details:
            if sequence.error is not None:
                raise sequence.error
        return self


@dataclass(frozen=True, slots=True)
class Completion:
    """The continuation of one text.

    Attributes:
        text: the text generated, without the prompt and without control tokens; a
            stop string is included, with what its last token has behind it.
        token_ids: its ids; a stop token is included.
        prompt_token_ids: ids of the prompt.
        finish_reason: why it ended, see `GeneratedSequence.finish_reason`.
        stop_string: the stop string that was matched.
        seed: reproduces it with the same prompt and configuration.
        usage: counts.
        timing: times on the server.
        effective_config: the configuration that was used, every field resolved.
        vocabulary: the vocabulary that was used.
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: str
    seed: int
    usage: Usage
    timing: Timing
    effective_config: dict[str, Any] = field(repr=False)
    vocabulary: VocabularyRef = field(repr=False)
    stop_string: str = ""

    __repr__ = one_line

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """Shows the text, and how it came about."""
        facts: dict[str, html.Cell] = {
            "tokens": len(self.token_ids),
            "finish reason": self.finish_reason,
            "seed": self.seed,
            "seconds": self.timing.total_s,
        }
        return html.stacked([html.text(self.text), html.facts(facts)])

    @property
    def text_before_stop(self) -> str:
        """The text up to the stop string; all of it when none was matched."""
        return self.text.partition(self.stop_string)[0] if self.stop_string else self.text

    @classmethod
    def of(cls, text: str, prompt_token_ids: list[int], generation: Generation) -> Self:
        """Builds the completion from its text and the generation of its one sequence.

        Raises:
            LockstepError: the sequence failed.
        """
        (sequence,) = generation.raise_for_errors().details
        return cls(
            text=text,
            token_ids=list(sequence.token_ids),
            prompt_token_ids=prompt_token_ids,
            finish_reason=sequence.finish_reason,
            seed=sequence.seed,
            usage=generation.usage,
            timing=generation.timing,
            effective_config=generation.effective_config,
            vocabulary=generation.vocabulary,
            stop_string=sequence.stop_string,
        )


def finish_reason(value: generation_pb.FinishReason) -> str:
    """Returns the name of a reason; a value newer than this client is `unknown_<n>`."""
    return enums.name(generation_pb.FinishReason.DESCRIPTOR, value)


def stack(sequences: Sequence[Sequence[Array | None]]) -> Array | None:
    """Puts ragged `[V]` rows into `[B, T, V]` of their type, NaN where a row is missing.

    Returns None when no row is present.
    """
    rows = [row for sequence in sequences for row in sequence if row is not None]
    if not rows:
        return None
    length = max(len(sequence) for sequence in sequences)
    stacked = np.full((len(sequences), length, len(rows[0])), np.nan, dtype=rows[0].dtype)
    for b, sequence in enumerate(sequences):
        for t, row in enumerate(sequence):
            if row is not None:
                stacked[b, t] = row
    return stacked
