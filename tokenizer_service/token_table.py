"""The vocabulary as a table: what each id is spelled like and stands for."""

from collections.abc import Iterable
from dataclasses import dataclass

import tokenizers

from tokenizer_service.token_bytes import DecoderRules, TokenType
from vocabulary import NewToken


@dataclass(frozen=True, slots=True, repr=False)
class TokenTable:
    """Immutable lists indexed by id; growing one makes another.

    Attributes:
        tokens: spelling inside the tokenizer; empty for an unused id.
        token_bytes: the bytes the id stands for; empty for an unused id.
        types: the kind of each entry.
        first_bytes: bytes at the beginning of a text, where they differ.
    """

    tokens: tuple[str, ...]
    token_bytes: tuple[bytes, ...]
    types: tuple[TokenType, ...]
    first_bytes: dict[int, bytes]

    def __len__(self) -> int:
        return len(self.tokens)

    def grown(self, new_tokens: Iterable[NewToken]) -> "TokenTable":
        """Returns a table with more tokens at its end."""
        contents = [new.token.content for new in new_tokens]
        return TokenTable(
            tokens=(*self.tokens, *contents),
            token_bytes=(*self.token_bytes, *(content.encode() for content in contents)),
            types=(
                *self.types,
                *(
                    TokenType.SPECIAL if new.token.special else TokenType.ADDED
                    for new in new_tokens
                ),
            ),
            first_bytes=self.first_bytes,
        )


def build_table(tokenizer: tokenizers.Tokenizer, rules: DecoderRules) -> TokenTable:
    """Reads the whole vocabulary of a tokenizer.

    A token that was added and is no piece of the model stands for its content,
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
    return TokenTable(tuple(tokens), tuple(token_bytes), tuple(types), first_bytes)
