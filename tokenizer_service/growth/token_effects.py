"""What adding tokens does to the encoding of texts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tokenizer_service.text.token_bytes import TokenType
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import AddedToken

# Texts encoded by one call of the library, whose results are converted under the lock
# of the interpreter.
_TEXTS_PER_CALL = 512


@dataclass(frozen=True, slots=True)
class TextEffect:
    """The encoding of a text before and after a change, control tokens parsed.

    Attributes:
        before: its ids before.
        after: its ids after.
        changes_text: whether it changes also where control tokens are not parsed.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    changes_text: bool


def text_effects(before: Tokenizer, after: Tokenizer, texts: Sequence[str]) -> list[TextEffect]:
    """Encodes texts as before and as after a change."""
    parsed = zip(ids_of(before, texts, parse=True), ids_of(after, texts, parse=True), strict=True)
    plain = zip(ids_of(before, texts, parse=False), ids_of(after, texts, parse=False), strict=True)
    return [
        TextEffect(*ids, changes_text=old != new)
        for ids, (old, new) in zip(parsed, plain, strict=True)
    ]


def changed_entries(
    before: Tokenizer, after: Tokenizer, tokens: Iterable[AddedToken]
) -> list[list[int]]:
    """Returns, for each token, the entries that contain it and whose text it changes.

    The text of an entry is encoded by itself, as ordinary text. Entries that are no
    text (a part of a character) are left out.
    """
    containing = [list(entries_with(before, token)) for token in tokens]
    texts = {}
    for token_id in sorted(set().union(*containing)):
        try:
            texts[token_id] = before.table.token_bytes[token_id].decode()
        except UnicodeDecodeError:
            continue
    old, new = (ids_of(one, list(texts.values()), parse=False) for one in (before, after))
    changed = {
        token_id for token_id, was, is_now in zip(texts, old, new, strict=True) if was != is_now
    }
    return [[token_id for token_id in ids if token_id in changed] for ids in containing]


def entries_with(tokenizer: Tokenizer, token: AddedToken) -> Iterator[int]:
    """Yields the pieces of ordinary text that contain a plain token, in order of id.

    A control token is in none: it is not part of ordinary text.
    """
    if token.special:
        return
    content = token.content.encode()
    pattern = tokenizer.normalized(token.content) if token.normalized else token.content
    for token_id, (token_bytes, spelling, kind) in enumerate(tokenizer.table.entries()):
        if kind is TokenType.NORMAL and (content in token_bytes or pattern in spelling):
            yield token_id


def ids_of(tokenizer: Tokenizer, texts: Sequence[str], *, parse: bool) -> list[tuple[int, ...]]:
    """Encodes texts without the tokens of the template."""
    return [
        ids
        for start in range(0, len(texts), _TEXTS_PER_CALL)
        for ids in tokenizer.ids_of(texts[start : start + _TEXTS_PER_CALL], parse=parse)
    ]
