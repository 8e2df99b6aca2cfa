"""Rows that are longer than what the model sees at once, scored in windows. Pure: no I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lockstep.v1 import model_service_pb2 as pb

from lockstep_client._calls.argument import Argument
from lockstep_client._results.scores import ScoredSequence
from lockstep_client._values import batch as batches
from lockstep_client.exceptions import LockstepError, WrongType, WrongValue


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a row.

    Attributes:
        row: the number of the row.
        begin: index of its first token.
        scored_from: index of the first token that is scored in it.
        end: index after its last token.
    """

    row: int
    begin: int
    scored_from: int
    end: int


class Windows:
    """The windows of a `Score` request, each of which is a row of another request.

    Attributes:
        request: the other one; the same where no row is longer than a window.
        row_numbers: of each of its rows, the number of the row of the caller.
        longest: most tokens of a row of it.
    """

    def __init__(
        self, request: pb.ScoreRequest, size: int | None, stride: int | None = None
    ) -> None:
        """Cuts.

        Args:
            request: with all rows.
            size: most tokens of a window; None for no windows.
            stride: how far a window is moved; half its size unless given.

        Raises:
            WrongValue: a window of that size or stride leaves tokens out.
        """
        self.request = request
        self._windows: list[Window] = []
        for name, value in (("window", size), ("stride", stride)):
            if value is not None and type(value) is not int:
                raise WrongType(f"{name} is a whole number, not {value!r}.")
        prompts = batches.rows_of(request.prompt)
        self.row_numbers: Sequence[int] = range(len(prompts))
        rows = list(_rows(request, prompts))
        self.longest = max((len(ids) for ids, _ in rows), default=0)
        if size is None:
            if stride is not None:
                raise WrongValue("stride needs window.")
            return
        stride = size // 2 if stride is None else stride
        if not 1 <= stride < size:
            raise WrongValue(
                f"window is at least 2 and stride at least 1 and below it, not {size} and {stride}."
            )
        uneven = request.HasField("continuations") and (
            len(request.continuations.sequences) != len(prompts)
        )
        if uneven or self.longest <= size:
            return  # there is nothing to cut, or what the service refuses
        self.longest = size
        self.request = pb.ScoreRequest()
        self.request.CopyFrom(request)
        self.request.ClearField("prompt")
        self.request.ClearField("continuations")
        for row, (ids, first) in enumerate(rows):
            for window in _windows(row, len(ids), first, size, stride):
                before = ids[window.begin : window.scored_from]
                scored = ids[window.scored_from : window.end]
                self.request.prompt.token_batch.sequences.add(ids=before)
                self.request.continuations.sequences.add(ids=scored)
                self._windows.append(window)
        self.row_numbers = [window.row for window in self._windows]

    def joined(self, scored: list[ScoredSequence]) -> list[ScoredSequence]:
        """Returns the results of the rows of the caller; that of a row that failed is its error."""
        if not self._windows:
            return scored
        pairs = zip(self._windows, scored, strict=True)
        by_row = groupby(pairs, key=lambda pair: pair[0].row)
        return [_joined([*pairs]) for _, pairs in by_row]


def perplexities(scored: list[ScoredSequence], given: Argument) -> list[float | LockstepError]:
    """Returns the perplexity of each text; that of one that failed is its error, which names it."""
    values: list[float | LockstepError] = []
    for each in scored:
        if isinstance(each, LockstepError):
            given.rename(each)
        values.append(each if isinstance(each, LockstepError) else each.perplexity)
    return values


def _rows(
    request: pb.ScoreRequest, prompts: Sequence[tuple[int, ...]]
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yields the ids of each row, and the index of the first one that is scored."""
    if not request.HasField("continuations"):
        yield from ((prompt, 1) for prompt in prompts)
        return
    for prompt, more in zip(prompts, request.continuations.sequences, strict=False):
        yield (*prompt, *more.ids), max(len(prompt), 1)


def _windows(row: int, count: int, first: int, size: int, stride: int) -> Iterator[Window]:
    """Yields windows, so that each token from `first` on is scored in one of them.

    Before a token that is scored there are `size - stride` others, or all that there are.
    """
    if count <= size or first >= count:
        yield Window(row, 0, min(first, count), count)
        return
    scored_from = first
    while scored_from < count:
        begin = max(scored_from - (size - stride), 0)
        end = min(begin + size, count)
        yield Window(row, begin, scored_from, end)
        scored_from = end


def _joined(pairs: list[tuple[Window, ScoredSequence]]) -> ScoredSequence:
    for _, scored in pairs:
        if isinstance(scored, LockstepError):
            return scored
    return ScoredSequence(
        scores=tuple(
            replace(position, position=position.position + window.begin)
            for window, scored in pairs
            for position in scored.scores
        ),
        logits_logprob=sum(scored.logits_logprob for _, scored in pairs),
        greedy=all(scored.greedy for _, scored in pairs),
    )
