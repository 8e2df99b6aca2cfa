"""The one check of token ids, for every field of every request that holds some."""

from collections.abc import Iterable, Sequence

from rpc.errors import TokenIdOutOfRange
from rpc.slices import slices

NONE = range(0)


def check_token_ids(
    field: str,
    rows: Iterable[Sequence[int]],
    vocabulary_size: int,
    without_rows: range = NONE,
    *,
    one_row: bool = False,
) -> None:
    """Checks that ids are in a vocabulary, and that the model has rows for them.

    Args:
        field: path of the field, for the error; of a batch, whatever its form.
        rows: ids, one sequence per row, without padding.
        vocabulary_size: number of ids of the request's revision.
        without_rows: the ids among them without a row in the model.
        one_row: whether the field has ids, and no rows of them: `rows` has these alone.

    Raises:
        TokenIdOutOfRange: an id is negative, at or above `vocabulary_size`, or without a row.
    """
    first_unusable = without_rows.start if without_rows else vocabulary_size
    for row, ids in enumerate(rows):
        if all(min(some) >= 0 and max(some) < first_unusable for some in slices(ids)):
            continue
        for index, token_id in enumerate(ids):
            has_row = token_id not in without_rows
            if not 0 <= token_id < vocabulary_size or not has_row:
                raise TokenIdOutOfRange(
                    field,
                    row=None if one_row else row,
                    index=index,
                    token_id=token_id,
                    vocabulary_size=vocabulary_size,
                    has_row=has_row,
                )
