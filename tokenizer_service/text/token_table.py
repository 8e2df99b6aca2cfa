"""The vocabulary as a table: what each id is spelled like and stands for."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import tokenizers

from tokenizer_service.text.token_bytes import DecoderRules, TokenType
from vocabulary import NewToken

_growing = threading.Lock()


@dataclass(frozen=True, slots=True, repr=False)
class TokenTable:
    """One revision's part of lists that are only ever appended to.

    Revisions share them: to copy a vocabulary for each new token would take longer than
    everything else about it.

    Attributes:
        tokens: by id, the spelling inside the tokenizer; empty for an unused id.
        token_bytes: by id, the bytes it stands for; empty for an unused id.
        types: by id, the kind of the entry.
        first_bytes: bytes at the beginning of a text, where they differ.
        size: how many ids this revision has. What follows them in the lists belongs to
            later ones.
    """

    tokens: list[str]
    token_bytes: list[bytes]
    types: list[TokenType]
    first_bytes: Mapping[int, bytes]
    size: int

    def __len__(self) -> int:
        return self.size

    def grown(self, new_tokens: Iterable[NewToken]) -> "TokenTable":
        """Returns a table with more tokens at its end."""
        new = [one.token for one in new_tokens]
        token_bytes = [token.content.encode() for token in new]
        with _growing:
            table = self
            if len(self.types) > self.size:  # another table grew out of this one
                table = self.marked(())
            table.tokens.extend(token.content for token in new)
            table.token_bytes.extend(token_bytes)
            table.types.extend(
                TokenType.SPECIAL if token.special else TokenType.ADDED for token in new
            )
        return replace(table, size=self.size + len(new))

    def marked(self, ids: Iterable[int]) -> "TokenTable":
        """Returns a table in which these entries are special: a copy, as older ones are not."""
        table = replace(
            self,
            tokens=self.tokens[: self.size],
            token_bytes=self.token_bytes[: self.size],
            types=self.types[: self.size],
        )
        for token_id in ids:
            table.types[token_id] = TokenType.SPECIAL
        return table

    def entries(self) -> Iterator[tuple[bytes, str, TokenType]]:
        """Yields bytes, spelling and kind of each id, in order."""
        return islice(zip(self.token_bytes, self.tokens, self.types, strict=False), self.size)


def build_table(tokenizer: tokenizers.Tokenizer, rules: DecoderRules) -> TokenTable:
    """Reads the whole vocabulary of a tokenizer.

    A token that was added and is not a piece of the model stands for its content,
    character by character. (The library would run it through the decoder, which
    damages for example `é` in a byte-level vocabulary.)
    """
    pieces = tokenizer.get_vocab(with_added_tokens=False)
    added = tokenizer.get_added_tokens_decoder()
    size = max([*pieces.values(), *added], default=-1) + 1
    tokens = [""] * size
    token_bytes = [b""] * size
    types = [TokenType.UNUSED] * size
    first_bytes = {}
    for token, token_id in pieces.items():
        tokens[token_id] = token
        token_bytes[token_id], types[token_id] = rules.spell(token)
        if (first := rules.spell_first(token)) != token_bytes[token_id]:
            first_bytes[token_id] = first
    for token_id, extra in added.items():
        types[token_id] = TokenType.SPECIAL if extra.special else TokenType.ADDED
        if extra.content not in pieces:
            tokens[token_id] = extra.content
            token_bytes[token_id] = extra.content.encode()
    return TokenTable(tokens, token_bytes, types, first_bytes, size)
