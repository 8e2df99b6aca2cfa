"""The one check of token ids, for every field of every request that holds some."""

from collections.abc import Iterable, Sequence

from rpc.errors import TokenIdOutOfRange


def check_token_ids(field: str, rows: Iterable[Sequence[int]], vocabulary_size: int) -> None:
    """Checks that ids are in a vocabulary.

    Args:
        field: path of the field, for the error.
        rows: ids, one sequence per row.
        vocabulary_size: number of ids of the request's revision.

    Raises:
        TokenIdOutOfRange: an id is negative, or at or above `vocabulary_size`.
    """
    for row, ids in enumerate(rows):
        if ids and (min(ids) < 0 or max(ids) >= vocabulary_size):
            index = next(i for i, x in enumerate(ids) if not 0 <= x < vocabulary_size)
            raise TokenIdOutOfRange(
                field,
                row=row,
                index=index,
                token_id=ids[index],
                vocabulary_size=vocabulary_size,
            )
