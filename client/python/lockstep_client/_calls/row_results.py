"""Results of parts of a call, put together to those of the whole call. Pure: no I/O."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from lockstep_client._requests.options import ManyOptions
from lockstep_client._results.generation import GeneratedSequence, Generation, Timing, Usage
from lockstep_client._values.batch import Batch, Encoding, Padded, ReturnTensors
from lockstep_client._values.choices import choose
from lockstep_client._values.tensors import Array
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import LockstepError

Result = TypeVar("Result")
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Part(Generic[Result]):
    """What came of some rows of a call.

    Attributes:
        rows: which.
        result: of these rows; None where they failed.
        error: why they failed.
    """

    rows: range
    result: Result | None = None
    error: LockstepError | None = None


def many(
    errors: Literal["raise", "return"] | None, progress: bool, concurrency: int | None
) -> ManyOptions:
    """Returns keywords of a method together."""
    return {"errors": errors or "raise", "progress": progress, "concurrency": concurrency}


def returns(errors: Literal["raise", "return"] | None) -> bool:
    """Says whether the errors of rows are returned.

    Raises:
        ValueError: `errors` has another value.
    """
    return choose("errors", errors or "raise", {"raise": False, "return": True})


def listed(parts: Iterable[Part[list[Row]]]) -> list[Row]:
    """Joins lists with an entry per row; the entry of a row that failed is its error."""
    entries: list[Row] = []
    for part in parts:
        if part.result is None:
            entries += [part.error] * len(part.rows)  # type: ignore[list-item]  # as asked for
        else:
            entries += part.result
    return entries


def newest(refs: Iterable[VocabularyRef | None]) -> VocabularyRef | None:
    """Returns the newest of the states of one vocabulary."""
    return max((ref for ref in refs if ref), key=lambda ref: ref.revision, default=None)


def newest_of_several(parts: Sequence[Part[Batch]]) -> int | None:
    """Returns the newest revision that parts were encoded with; None where all have the same."""
    refs = [part.result.vocabulary for part in parts if part.result and part.result.vocabulary]
    revisions = {ref.revision for ref in refs}
    return max(revisions) if len(revisions) > 1 else None


def batch(parts: Sequence[Part[Batch]], return_tensors: ReturnTensors) -> Batch:
    """Joins batches, whose rectangles are of numpy, and pads them together.

    A row that failed has no ids, and its error in `errors`.
    """
    whole = _joined_batch(parts) if len(parts) > 1 or parts[0].error else parts[0].result
    assert whole is not None, "Parts have a result or an error."
    if return_tensors == "np":
        return whole
    padded = None if whole.padded is None else whole.padded.to_torch()
    return replace(whole, padded=padded, return_tensors=return_tensors)


def _joined_batch(parts: Sequence[Part[Batch]]) -> Batch:
    results = [part.result for part in parts if part.result is not None]
    errors = {row: part.error for part in parts for row in part.rows if part.error is not None}
    has_details = any(result.encodings for result in results)
    token_ids, encodings = [], []
    for part in parts:
        blank = [Encoding()] * len(part.rows)
        token_ids += [[] for _ in part.rows] if part.result is None else part.result.token_ids
        encodings += blank if part.result is None else part.result.encodings or blank
    return Batch(
        token_ids=token_ids,
        vocabulary=newest(result.vocabulary for result in results),
        padded=_joined_rectangle(parts),
        encodings=encodings if has_details else [],
        errors=errors,
    )


def _joined_rectangle(parts: Sequence[Part[Batch]]) -> Padded | None:
    """Widens rectangles to the widest, on the side that is padded, and stacks them."""
    rectangles = [part.result.padded for part in parts if part.result and part.result.padded]
    if not rectangles:
        return None
    width = max(rectangle.input_ids.shape[1] for rectangle in rectangles)
    model = rectangles[0]
    fills = {"input_ids": model.pad_token_id or 0, "attention_mask": 0, "position_ids": 1}

    def stacked(name: str) -> Array:
        rows = []
        for part in parts:
            padded = part.result.padded if part.result else None
            values = getattr(padded, name) if padded else np.zeros((len(part.rows), 0), np.int64)
            missing = width - values.shape[1]
            sides = (missing, 0) if model.padding_side == "left" else (0, missing)
            rows.append(np.pad(values, ((0, 0), sides), constant_values=fills[name]))
        return np.concatenate(rows)

    return Padded(
        stacked("input_ids"),
        stacked("attention_mask"),
        stacked("position_ids"),
        model.padding_side,
        model.pad_token_id,
    )


def generation(
    parts: Sequence[Part[Generation]], prompts: tuple[tuple[int, ...], ...]
) -> Generation:
    """Joins generations: counts are added up, and times are those of the slowest request.

    A row that failed has one sequence, with its error.

    Args:
        parts: the results.
        prompts: ids of each prompt of all parts.

    Raises:
        LockstepError: every row failed.
    """
    results = [part.result for part in parts if part.result is not None]
    if not results:
        assert parts[0].error is not None, "Parts have a result or an error."
        raise parts[0].error
    if len(parts) == 1:
        return results[0]
    details = [sequence for part in parts for sequence in _details(part)]
    vocabulary = newest(result.vocabulary for result in results)
    assert vocabulary is not None, "Every generation names its vocabulary."
    return replace(
        results[0],
        details=tuple(details),
        prompts=prompts,
        vocabulary=vocabulary,
        usage=Usage(**_combined(sum, [result.usage for result in results])),
        timing=Timing(**_combined(max, [result.timing for result in results])),
    )


def _details(part: Part[Generation]) -> list[GeneratedSequence]:
    if part.result is None:
        return [GeneratedSequence(row, 0, (), "error", 0, error=part.error) for row in part.rows]
    return [
        replace(sequence, prompt_index=part.rows[sequence.prompt_index])
        for sequence in part.result.details
    ]


def _combined(combine: Callable[[Iterable[Any]], Any], values: Sequence[Any]) -> dict[str, Any]:
    names = [field.name for field in fields(values[0])]
    return {name: combine(getattr(value, name) for value in values) for name in names}
