"""Stop strings, found in the bytes of generated tokens.

Bytes, because a token may begin or end inside of a character, and a stop string
inside of a token.
"""

from collections.abc import Iterable, Mapping


def completed(
    stop_strings: Iterable[str],
    token_id: int,
    earlier_ids: Iterable[int],
    token_bytes: Mapping[int, bytes],
) -> str | None:
    """Returns the stop string that a token completes, or None.

    Nothing is remembered between calls, so that rows can be cut, copied and put
    back at will: only as many tokens are read as the longest string needs.

    Args:
        stop_strings: the texts; none is empty.
        token_id: the token.
        earlier_ids: the generated tokens before it, the newest first.
        token_bytes: the bytes that ids stand for.

    Returns:
        The one that ends first, of several that end at the same byte the first
        in order.
    """
    last = token_bytes.get(token_id, b"")
    wanted = [(text, text.encode()) for text in stop_strings]
    missing = max(len(pattern) for _, pattern in wanted) - 1
    parts = [last]
    for earlier_id in earlier_ids:
        if missing <= 0:
            break
        parts.append(token_bytes.get(earlier_id, b""))
        missing -= len(parts[-1])
    tail = b"".join(reversed(parts))
    ends = []
    for text, pattern in wanted:
        first = len(tail) - len(last) - len(pattern) + 1  # so that it ends within the token
        if (place := tail.find(pattern, max(0, first))) >= 0:
            ends.append((place + len(pattern), text))
    return min(ends, key=lambda end: end[0])[1] if ends else None
