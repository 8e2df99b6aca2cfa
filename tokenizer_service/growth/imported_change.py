"""Which changes may come from elsewhere.

A chain proves that it was not altered, not that a service made it. So what `AddTokens`
never lets into a log is refused here too.
"""

import numpy as np

from tokenizer_service.growth.token_rules import content_problem
from vocabulary import Change, NewToken
from wire.tensors import MAX_HIDDEN_SIZE


def check(change: Change, size: int) -> None:
    """Checks a change of an archive.

    Args:
        change: the change.
        size: number of ids before it.

    Raises:
        ValueError: no service makes such a change.
    """
    if change == Change():
        raise ValueError("A revision changes something.")
    tokens = [new.token for new in change.tokens]
    for token in [*tokens, *(marked.token for marked in change.marked_tokens)]:
        if content_problem(token.content, allow_unusual=True) is not None:
            raise ValueError("A token has a text that is never allowed.")
    if not all(marked.token.special for marked in change.marked_tokens):
        raise ValueError("A token is marked as special only.")
    for new in change.tokens:
        _check_pieces(new, size)
        _check_values(new)


def _check_pieces(new: NewToken, size: int) -> None:
    copied = () if new.copy_token_id is None else (new.copy_token_id,)
    if any(not 0 <= token_id < size for token_id in (*new.previous_ids, *copied)):
        raise ValueError("A token is made of ids that did not exist.")
    if (new.initialization == "copy") != bool(copied):
        raise ValueError("Only a copy has an id to copy, and it has one.")
    if new.initialization == "mean_of_pieces" and not new.previous_ids:
        raise ValueError("A mean needs pieces.")


def _check_values(new: NewToken) -> None:
    if (new.initialization == "values") != bool(new.input_values):
        raise ValueError("Only trained vectors are values, and they have some.")
    if new.output_values and len(new.output_values) != len(new.input_values):
        raise ValueError("Both vectors have one size.")
    for values in (new.input_values, new.output_values):
        if len(values) % 4 or len(values) > 4 * MAX_HIDDEN_SIZE:
            raise ValueError("A vector has at most 65536 numbers.")
        if not np.isfinite(np.frombuffer(values, "<f4")).all():
            raise ValueError("A vector holds finite numbers.")
