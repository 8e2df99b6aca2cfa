"""Sequences of their own, and the sampler on rows of logits for them: no engine, no model."""

from collections.abc import Iterable

import torch

from model_service.engine.sampling import processors, sampler
from model_service.engine.sampling.choosing import Choosing, Draw
from model_service.engine.sampling.sampler import Choice
from model_service.engine.sequences.sequence import RowCall, Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol.parameters import GenerationConfig


def make_sequence(
    prompt: Iterable[int],
    config: GenerationConfig,
    *,
    size: int,
    new: Iterable[int] = (),
    seed: int = 0,
    max_length: int = 100,
) -> Sequence:
    """Makes a sequence that generates, with ids `[0, size)`."""
    prompt = tuple(prompt)
    limit = len(prompt) + config.max_new_tokens
    choosing = Choosing(
        config,
        seed,
        RevisionRows(size, ()),
        prompt,
        min(limit, max_length),
        searches=config.num_beams > 1,
    )
    return Sequence(0, [*prompt, *new], max_length, choosing, RowCall(1, limit=limit))


def draw(seq: Sequence, row: int = 0, *, wants_scores: bool = False) -> Draw:
    return Draw(seq.choosing, seq.token_ids, row, wants_scores=wants_scores)


def scores(seq: Sequence, logits: torch.Tensor, forbidden: Iterable[int] = ()) -> torch.Tensor:
    """Scores of the next token by Hugging Face's classes, `[V]` float32."""
    _forbid(seq, forbidden)
    return processors.scores(seq.choosing, seq.token_ids, logits)


def choose(
    logits: torch.Tensor,
    sequences: list[Sequence],
    forbidden: Iterable[int] = (),
    *,
    wants_scores: bool = False,
) -> list[Choice]:
    """One step of `[N, V]` logits, row i for sequence i."""
    for seq in sequences:
        _forbid(seq, forbidden)
    draws = [draw(seq, row, wants_scores=wants_scores) for row, seq in enumerate(sequences)]
    return sampler.choose(logits, draws)


def _forbid(seq: Sequence, forbidden: Iterable[int]) -> None:
    """Moves a sequence to a revision where these ids must not be generated."""
    revision = RevisionRows(seq.choosing.revision.size, tuple(forbidden))
    if revision != seq.choosing.revision:
        seq.rebind(revision)
