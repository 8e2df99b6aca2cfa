"""The processors that come before the warpers, in place on one row of logits.

Each touches the few ids that it is about and keeps what it must know of the
sequence's tokens up to date, where Hugging Face's classes read all tokens and
write whole rows. The arithmetic on each id is theirs, operation by operation,
so scores are equal to the bit.

V: ids of the sequence's revision.
"""

from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from model_service.active_processors import PROCESSORS, active, bad_words
from model_service.engine.sampling.token_history import TokenCounts, TokenPositions
from model_service.engine.sequence import Sequence

Step = Callable[[Tensor, list[int]], None]
"""Changes a row `[V]` float32 of a sequence with these tokens."""


class RowProcessors:
    """What one sequence's configuration does to its rows before the warpers."""

    def __init__(self, seq: Sequence, forbidden: tuple[int, ...]) -> None:
        """Reads the configuration, which the fast path must cover.

        Args:
            seq: whose rows.
            forbidden: ids of its revision that must not be generated.
        """
        self._steps = [_BUILDERS[name](seq) for name in active(seq.config, PROCESSORS)]
        if forbidden:
            self._steps.append(_exclude(forbidden))

    def __bool__(self) -> bool:
        """Whether rows are changed at all."""
        return bool(self._steps)

    def __call__(self, logits: Tensor, token_ids: list[int]) -> Tensor:
        """Returns the scores for a sequence's next token.

        Args:
            logits: `[V]` float32, not modified.
            token_ids: the sequence's tokens: those of the last time and more.

        Returns:
            `[V]` float32.
        """
        row = logits.clone()
        for step in self._steps:
            step(row, token_ids)
        return row


def _exclude(ids: Iterable[int]) -> Step:
    index = torch.tensor(sorted(set(ids)), dtype=torch.int64)
    return lambda row, _: _put(row, index, -torch.inf)


def _put(row: Tensor, index: Tensor, value: float) -> None:
    row.index_fill_(0, index.to(row.device), value)


def _replace(row: Tensor, index: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    index = index.to(row.device)
    row[index] = change(row[index])


def _scale(values: Tensor, penalty: float) -> Tensor:
    return torch.where(values < 0, values * penalty, values / penalty)


def _encoder_repetition_penalty(seq: Sequence) -> Step:
    penalty = 1 / seq.config.encoder_repetition_penalty
    index = torch.tensor(sorted(set(seq.token_ids[: seq.num_prompt_tokens])))
    return lambda row, _: _replace(row, index, lambda values: _scale(values, penalty))


def _repetition_penalty(seq: Sequence) -> Step:
    penalty = seq.config.repetition_penalty
    counts = TokenCounts(seq.config.prompt_ignore_length)

    def step(row: Tensor, token_ids: list[int]) -> None:
        ids, _ = counts.update(token_ids)
        _replace(row, ids, lambda values: _scale(values, penalty))

    return step


def _presence_penalty(seq: Sequence) -> Step:
    penalty = seq.config.presence_penalty
    counts = TokenCounts(seq.num_prompt_tokens)

    def step(row: Tensor, token_ids: list[int]) -> None:
        ids, _ = counts.update(token_ids)
        _replace(row, ids, lambda values: values - penalty)

    return step


def _frequency_penalty(seq: Sequence) -> Step:
    penalty = seq.config.frequency_penalty
    counts = TokenCounts(seq.num_prompt_tokens)

    def step(row: Tensor, token_ids: list[int]) -> None:
        ids, occurrences = counts.update(token_ids)
        _replace(row, ids, lambda values: values - (penalty * occurrences).to(values.device))

    return step


def _bias(biases: Iterable[tuple[tuple[int, ...], float]]) -> Step:
    """Adds to the last ids of runs whose other ids end the sequence.

    What several runs add to one id is summed in Hugging Face's order: single ids
    first, then by length, lengths in the order of their first run.
    """
    single: dict[int, np.float32] = {}
    by_length: dict[int, list[tuple[tuple[int, ...], np.float32]]] = {}
    for run, bias in dict(biases).items():  # of equal runs the last one counts
        if len(run) == 1:
            single[run[0]] = np.float32(bias)
        else:
            by_length.setdefault(len(run), []).append((run, np.float32(bias)))
    longer = [entry for group in by_length.values() for entry in group]
    always = _tensors(single)

    def step(row: Tensor, token_ids: list[int]) -> None:
        matches = [(run[-1], bias) for run, bias in longer if _ends_with(token_ids, run[:-1])]
        index, values = always
        if matches:
            sums = dict(single)
            for token_id, bias in matches:
                sums[token_id] = sums.get(token_id, np.float32(0)) + bias
            index, values = _tensors(sums)
        _replace(row, index, lambda old: old + values.to(old.device))

    return step


def _tensors(values: dict[int, np.float32]) -> tuple[Tensor, Tensor]:
    index = torch.tensor(list(values), dtype=torch.int64)
    return index, torch.tensor(list(values.values()), dtype=torch.float32)


def _ends_with(token_ids: list[int], run: tuple[int, ...]) -> bool:
    return (
        len(run) <= len(token_ids)
        and token_ids[-1] == run[-1]
        and token_ids[len(token_ids) - len(run) :] == list(run)
    )


def _no_repeat_ngram(seq: Sequence) -> Step:
    length = seq.config.no_repeat_ngram_size
    positions = TokenPositions()

    def step(row: Tensor, token_ids: list[int]) -> None:
        positions.update(token_ids)
        _exclude_followers(row, positions, token_ids, length)

    return step


def _encoder_no_repeat_ngram(seq: Sequence) -> Step:
    length = seq.config.encoder_no_repeat_ngram_size
    positions = TokenPositions()
    positions.update(seq.token_ids[: seq.num_prompt_tokens])
    return lambda row, token_ids: _exclude_followers(row, positions, token_ids, length)


def _exclude_followers(
    row: Tensor, positions: TokenPositions, token_ids: list[int], length: int
) -> None:
    """Excludes the ids that would complete a run of `length` that was there before."""
    prefix = length - 1
    if prefix <= len(token_ids):
        ids = list(positions.followers(token_ids[len(token_ids) - prefix :]))
        _put(row, torch.tensor(ids, dtype=torch.int64), -torch.inf)


def _until(length: int, step: Step) -> Step:
    """Limits a step to sequences shorter than `length`."""
    return lambda row, token_ids: step(row, token_ids) if len(token_ids) < length else None


def _allow(seq: Sequence) -> Step:
    index = torch.tensor(seq.config.allowed_token_ids or (), dtype=torch.int64)

    def step(row: Tensor, _: list[int]) -> None:
        kept = row[index.to(row.device)]
        row.fill_(-torch.inf)
        _replace(row, index, lambda _: kept)

    return step


def _force(by_length: dict[int, tuple[int, ...]]) -> Step:
    """Leaves only certain ids, with score 0, where the sequence has a certain length."""

    def step(row: Tensor, token_ids: list[int]) -> None:
        if len(token_ids) in by_length:
            row.fill_(-torch.inf)
            _put(row, torch.tensor(by_length[len(token_ids)]), 0.0)

    return step


def _forced_prefix(seq: Sequence) -> Step:
    prompt = seq.num_prompt_tokens
    return _force({prompt + i: (token_id,) for i, token_id in enumerate(seq.config.forced_prefix)})


def _exponential_decay(seq: Sequence) -> Step:
    offset, factor = seq.config.exponential_decay_length_penalty or (0, 1.0)
    start = seq.num_prompt_tokens + offset
    index = torch.tensor(_ends(seq), dtype=torch.int64)

    def step(row: Tensor, token_ids: list[int]) -> None:
        if len(token_ids) <= start:
            return
        growth = pow(factor, len(token_ids) - start) - 1
        _replace(
            row,
            index,
            lambda old: old + (old.abs() * growth).masked_fill(~old.isfinite(), 0.0),
        )

    return step


def _begin_suppress(seq: Sequence) -> Step:
    forced = seq.num_prompt_tokens == 1 and seq.config.forced_bos_token_id is not None
    begin = seq.num_prompt_tokens + forced
    exclude = _exclude(seq.config.begin_suppress_tokens)
    return lambda row, token_ids: exclude(row, token_ids) if len(token_ids) == begin else None


def _ends(seq: Sequence) -> list[int]:
    """Returns the end-of-sequence ids that the sequence's revision has."""
    return [token_id for token_id in seq.config.eos_token_ids if token_id < seq.vocabulary_size]


_BUILDERS: dict[str, Callable[[Sequence], Step]] = {
    "sequence_bias": lambda s: _bias(s.config.sequence_bias),
    "encoder_repetition_penalty": _encoder_repetition_penalty,
    "repetition_penalty": _repetition_penalty,
    "presence_penalty": _presence_penalty,
    "frequency_penalty": _frequency_penalty,
    "logit_bias": lambda s: _bias(((token_id,), bias) for token_id, bias in s.config.logit_bias),
    "no_repeat_ngram_size": _no_repeat_ngram,
    "encoder_no_repeat_ngram_size": _encoder_no_repeat_ngram,
    "bad_words_ids": lambda s: _bias((word, -torch.inf) for word in bad_words(s.config)),
    "min_length": lambda s: _until(s.config.min_length, _exclude(_ends(s))),
    "min_new_tokens": lambda s: _until(
        s.num_prompt_tokens + s.config.min_new_tokens, _exclude(_ends(s))
    ),
    "allowed_token_ids": _allow,
    "forced_prefix": _forced_prefix,
    "forced_bos_token_id": lambda s: _force({1: (cast(int, s.config.forced_bos_token_id),)}),
    "forced_eos_token_ids": lambda s: _force({s.length_limit - 1: s.config.forced_eos_token_ids}),
    "remove_invalid_values": lambda s: lambda row, _: _remove_invalid(row),
    "exponential_decay_length_penalty": _exponential_decay,
    "suppress_tokens": lambda s: _exclude(s.config.suppress_tokens),
    "begin_suppress_tokens": _begin_suppress,
}
"""How each processor is made, by its name in `active_processors.py`."""


def _remove_invalid(row: Tensor) -> None:
    torch.nan_to_num(row, nan=0.0, out=row)  # infinities become the largest finite numbers
