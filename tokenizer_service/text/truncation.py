"""Which tokens of an encoding stay when it is too long.

The tokens that the tokenizer's template added (BOS and the like) always stay;
what is removed are tokens of the text. So requests never share a truncation
setting, and a row of `max_length` ids includes its special tokens.
"""

from collections.abc import Sequence

from tokenizer_service.text.padding import Side


def kept_positions(sequence_ids: Sequence[int | None], *, max_length: int, side: Side) -> list[int]:
    """Returns the positions that stay, in order.

    Args:
        sequence_ids: which text each token belongs to, None for template tokens.
        max_length: most tokens in all, at least the number of template tokens.
        side: the side of each text that tokens are removed from.
    """
    first, second = (sequence_ids.count(text) for text in (0, 1))
    template = len(sequence_ids) - first - second
    keep = _longest_first(first, second, max_length - template)
    removed: set[int] = set()
    for text, length in enumerate((first, second)):
        places = [place for place, owner in enumerate(sequence_ids) if owner == text]
        surplus = length - keep[text]
        removed.update(places[:surplus] if side == "left" else places[length - surplus :])
    return [place for place in range(len(sequence_ids)) if place not in removed]


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Divides room between two texts by shortening the longer one first.

    Source: `truncate_encodings` with `LongestFirst` of the tokenizers library, which
    gives the odd place to the longer text.
    """
    if first + second <= room:
        return first, second
    shorter, longer = min(first, second), max(first, second)
    if shorter + max(shorter, room - shorter) > room:
        shorter, longer = room // 2, room // 2 + room % 2
    else:
        longer = room - shorter
    return (shorter, longer) if first <= second else (longer, shorter)
