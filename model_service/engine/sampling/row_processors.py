"""The processors that come before the warpers, in place on one row of logits.

Each touches the few ids that it is about and keeps what it must know of the
sequence's tokens up to date, where Hugging Face's classes read all tokens and
write whole rows. The arithmetic on each id is theirs, operation by operation,
so scores are equal to the bit.

V: ids of the sequence's revision.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_service.engine.sampling.row import Row
from model_service.engine.sampling.token_history import TokenCounts, TokenPositions
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_arguments import bad_words
from model_service.protocol.processor_order import in_default_order

RowStep = Callable[[Tensor, list[int]], None]
"""Changes a row `[V]` float32 of a sequence with these tokens."""


class RowProcessors:
    """What one sequence's configuration does to its rows before the warpers."""

    def __init__(self, config: GenerationConfig, row: Row, forbidden: tuple[int, ...]) -> None:
        """Reads the configuration, which the fast path must cover.

        Args:
            config: of the sequence.
            row: the sequence.
            forbidden: ids of its revision that must not be generated.
        """
        self._row = row
        self._forbidden = forbidden
        self._arguments = [
            (name, arguments) for name, arguments in in_default_order(config) if name in _BUILDERS
        ]
        self._steps = self._build()
        self._remembers = any(name in _REMEMBERING for name, _ in self._arguments)
        self._known: list[int] = []

    def __bool__(self) -> bool:
        """Whether rows are changed at all."""
        return bool(self._steps)

    def __call__(self, row: Tensor, token_ids: list[int]) -> None:
        """Turns the logits of a sequence's next token into its scores.

        Args:
            row: `[V]` float32, changed in place.
            token_ids: the sequence's tokens. If they do not continue the tokens of
                the last call, all that was remembered is computed again.
        """
        if self._remembers:
            if token_ids[: len(self._known)] != self._known:
                self._steps, self._known = self._build(), []
            self._known += token_ids[len(self._known) :]
        for step in self._steps:
            step(row, token_ids)

    def _build(self) -> list[RowStep]:
        steps = [_BUILDERS[name](arguments, self._row) for name, arguments in self._arguments]
        return [*steps, _exclude(self._forbidden)] if self._forbidden else steps


_REMEMBERING = frozenset(
    {"repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size"}
)
"""Those that keep an index of the tokens so far."""


def _exclude(ids: Iterable[int]) -> RowStep:
    index = torch.tensor(sorted(set(ids)), dtype=torch.int64)
    return lambda row, _: _put(row, index, -torch.inf)


def _on(values: Tensor, row: Tensor) -> Tensor:
    """Copies values to where a row is. On a GPU nobody waits for that."""
    return values.to(row.device, non_blocking=True)


def _put(row: Tensor, index: Tensor, value: float) -> None:
    row.index_fill_(0, _on(index, row), value)


def _replace(row: Tensor, index: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    index = _on(index, row)
    row[index] = change(row[index])


def _scale(values: Tensor, penalty: float) -> Tensor:
    return torch.where(values < 0, values * penalty, values / penalty)


def _encoder_repetition_penalty(penalty: float, prompt: tuple[int, ...]) -> RowStep:
    index = torch.tensor(sorted(set(prompt)))
    return lambda row, _: _replace(row, index, lambda values: _scale(values, 1 / penalty))


def _repetition_penalty(penalty: float, ignored: int) -> RowStep:
    counts = TokenCounts(ignored)

    def step(row: Tensor, token_ids: list[int]) -> None:
        ids, _ = counts.update(token_ids)
        _replace(row, ids, lambda values: _scale(values, penalty))

    return step


def _presence_penalty(penalty: float, prompt_length: int) -> RowStep:
    counts = TokenCounts(prompt_length)

    def step(row: Tensor, token_ids: list[int]) -> None:
        ids, _ = counts.update(token_ids)
        _replace(row, ids, lambda values: values - penalty)

    return step


def _frequency_penalty(penalty: float, prompt_length: int) -> RowStep:
    counts = TokenCounts(prompt_length)

    def step(row: Tensor, token_ids: list[int]) -> None:
        ids, occurrences = counts.update(token_ids)
        _replace(row, ids, lambda values: values - _on(penalty * occurrences, values))

    return step


def _bias(biases: Iterable[tuple[tuple[int, ...], float]]) -> RowStep:
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
        _replace(row, index, lambda old: old + _on(values, old))

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


def _no_repeat_ngram(length: int) -> RowStep:
    positions = TokenPositions()

    def step(row: Tensor, token_ids: list[int]) -> None:
        positions.update(token_ids)
        _exclude_followers(row, positions, token_ids, length)

    return step


def _encoder_no_repeat_ngram(length: int, prompt: tuple[int, ...]) -> RowStep:
    positions = TokenPositions()
    positions.update(list(prompt))
    return lambda row, token_ids: _exclude_followers(row, positions, token_ids, length)


def _exclude_followers(
    row: Tensor, positions: TokenPositions, token_ids: list[int], length: int
) -> None:
    """Excludes the ids that would complete a run of `length` that was there before."""
    prefix = length - 1
    if prefix <= len(token_ids):
        ids = list(positions.followers(token_ids[len(token_ids) - prefix :]))
        _put(row, torch.tensor(ids, dtype=torch.int64), -torch.inf)


def _until(length: int, step: RowStep) -> RowStep:
    """Limits a step to sequences shorter than `length`."""
    return lambda row, token_ids: step(row, token_ids) if len(token_ids) < length else None


def _allow(ids: tuple[int, ...]) -> RowStep:
    index = torch.tensor(ids, dtype=torch.int64)

    def step(row: Tensor, _: list[int]) -> None:
        kept = row[_on(index, row)]
        row.fill_(-torch.inf)
        _replace(row, index, lambda _: kept)

    return step


def _force(by_length: dict[int, tuple[int, ...]]) -> RowStep:
    """Leaves only certain ids, with score 0, where the sequence has a certain length."""

    def step(row: Tensor, token_ids: list[int]) -> None:
        if len(token_ids) in by_length:
            row.fill_(-torch.inf)
            _put(row, torch.tensor(by_length[len(token_ids)]), 0.0)

    return step


def _forced_prefix(ids: tuple[int, ...], prompt_length: int) -> RowStep:
    return _force({prompt_length + i: (token_id,) for i, token_id in enumerate(ids)})


def _exponential_decay(start: int, factor: float, ends: tuple[int, ...]) -> RowStep:
    index = torch.tensor(ends, dtype=torch.int64)

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


def _suppress_at(length: int, ids: tuple[int, ...]) -> RowStep:
    exclude = _exclude(ids)
    return lambda row, token_ids: exclude(row, token_ids) if len(token_ids) == length else None


def _remove_invalid(row: Tensor) -> None:
    torch.nan_to_num(row, nan=0.0, out=row)  # infinities become the largest finite numbers


_BUILDERS: dict[str, Callable[[Any, Row], RowStep]] = {
    "sequence_bias": lambda a, _: _bias((entry.ids, entry.bias) for entry in a.sequence_bias),
    "encoder_repetition_penalty": lambda a, row: _encoder_repetition_penalty(
        a.penalty, row.prompt_token_ids
    ),
    "repetition_penalty": lambda a, _: _repetition_penalty(a.penalty, a.prompt_ignore_length),
    "presence_penalty": lambda a, row: _presence_penalty(a.penalty, row.prompt_length),
    "frequency_penalty": lambda a, row: _frequency_penalty(a.penalty, row.prompt_length),
    "logit_bias": lambda a, _: _bias(((entry.token_id,), entry.bias) for entry in a.logit_bias),
    "no_repeat_ngram_size": lambda a, _: _no_repeat_ngram(a.ngram_size),
    "encoder_no_repeat_ngram_size": lambda a, row: _encoder_no_repeat_ngram(
        a.ngram_size, row.prompt_token_ids
    ),
    "bad_words_ids": lambda a, row: _bias(
        (word, -torch.inf) for word in bad_words(a.bad_words_ids, row.eos_token_ids)
    ),
    "min_length": lambda a, row: _until(a.min_length, _exclude(row.eos_token_ids)),
    "min_new_tokens": lambda a, row: _until(
        row.prompt_length + a.min_new_tokens, _exclude(row.eos_token_ids)
    ),
    "allowed_token_ids": lambda a, _: _allow(a.token_ids),
    "forced_prefix": lambda a, row: _forced_prefix(a.token_ids, row.prompt_length),
    "forced_bos_token_id": lambda a, _: _force({1: (a.token_id,)}),
    "forced_eos_token_ids": lambda a, row: _force({row.length_limit - 1: a.token_ids}),
    "remove_invalid_values": lambda _, __: lambda row, _: _remove_invalid(row),
    "exponential_decay_length_penalty": lambda a, row: _exponential_decay(
        row.prompt_length + a.start_index, a.decay_factor, row.eos_token_ids
    ),
    "suppress_tokens": lambda a, _: _exclude(a.token_ids),
    "begin_suppress_tokens": lambda a, row: _suppress_at(row.begin, a.token_ids),
}
"""How each processor is made of its arguments and its row, by its name."""
