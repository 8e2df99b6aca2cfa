"""One revision of a tokenizer: text to ids and back.

Nothing here changes once it is made. A new revision is a new `Tokenizer`, so a
`Tokenizer` may be used from any thread, and everything it computes belongs to
exactly one revision.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import tokenizers

from rpc.slices import slices
from tokenizer_service.text import encoding
from tokenizer_service.text.control_tokens import Aliases
from tokenizer_service.text.encoding import EncodedRow, EncodeOptions, Text
from tokenizer_service.text.growing_tokenizer import GrowingTokenizer, WrongIdError
from tokenizer_service.text.incremental import (
    ConcatenatingDecoder,
    DecodeOptions,
    IncrementalDecoder,
)
from tokenizer_service.text.token_bytes import DecoderRules
from tokenizer_service.text.token_table import TokenTable
from vocabulary import (
    AddedToken,
    BrokenChainError,
    Change,
    MarkedToken,
    NewToken,
    Reference,
    Role,
    chain,
)


@dataclass(frozen=True, slots=True)
class Growth:
    """What was added since revision 0, newest first, so that more can be added without a copy.

    Attributes:
        tokens: the newest ones, in order of id.
        before: what was added earlier.
    """

    tokens: tuple[NewToken, ...]
    before: "Growth | None"


@dataclass(frozen=True, slots=True, repr=False)
class Tokenizer:
    """A tokenizer at one revision.

    Attributes:
        reference: the revision.
        roles: the ids of special tokens by role.
        table: the vocabulary by id.
        control_ids: ids of control tokens.
        decoder_rules: how spellings become text.
        cleans_up_spaces: whether decoding removes spaces before punctuation unless
            told otherwise.
        trusting: parses control tokens spelled in text.
        plain: takes control tokens spelled in text as the characters they are, and
            knows them by their aliases only. A piece of the model that became special later
            has no alias: it is still a piece of ordinary text.
        aliases: those spellings.
        growth: the tokens that were added since revision 0; None if there are none.
    """

    reference: Reference
    roles: Mapping[Role, int]
    table: TokenTable
    control_ids: frozenset[int]
    decoder_rules: DecoderRules
    cleans_up_spaces: bool
    trusting: GrowingTokenizer
    plain: GrowingTokenizer
    aliases: Aliases
    growth: Growth | None = None

    def __repr__(self) -> str:
        # Neither megabytes of vocabulary nor the aliases belong in a log.
        return f"Tokenizer({self.reference})"

    @property
    def size(self) -> int:
        """Number of ids; every id is in [0, size)."""
        return self.reference.size

    @property
    def pad_token_id(self) -> int:
        """The id for padding: pad, or end of sequence where there is none, or 0."""
        return self.roles.get("pad", self.roles.get("eos", 0))

    @property
    def model_type(self) -> str:
        """Kind of model: `BPE`, `Unigram`, `WordPiece` or `WordLevel`."""
        return type(self.trusting.model).__name__

    def template_length(self, *, pair: bool) -> int:
        """Returns how many tokens the template adds to a text or a pair."""
        return self.trusting.for_texts(()).num_special_tokens_to_add(pair)

    def id_of(self, token: str) -> int | None:
        """Looks up a spelling."""
        return self.trusting.id_of(token)

    def addition_of(self, token_id: int) -> NewToken | None:
        """Returns how an id was added, None for one of revision 0."""
        growth = self.growth
        while growth is not None:
            if growth.tokens and token_id >= growth.tokens[0].id:
                return growth.tokens[token_id - growth.tokens[0].id]
            growth = growth.before
        return None

    @property
    def added_tokens(self) -> Mapping[int, tokenizers.AddedToken]:
        """Tokens matched before the model, base and live ones, in order of id."""
        return self.trusting.tokens

    def normalized(self, text: str) -> str:
        """Returns a text as the tokenizer's normalizer changes it."""
        if (normalizer := self.trusting.normalizer) is None:
            return text
        changed: str = normalizer.normalize_str(text)
        return changed

    def encode(self, items: Sequence[Text], options: EncodeOptions) -> list[EncodedRow]:
        """Encodes texts; a row never depends on the others."""
        growing = self.trusting if options.parse_special_tokens else self.plain
        texts = (text for item in items for text in (item.text, item.pair) if text is not None)
        return encoding.encode_rows(growing.for_texts(texts), self.table, items, options)

    def ids_of(self, texts: Sequence[str], *, parse: bool) -> list[tuple[int, ...]]:
        """Encodes texts without the tokens of the template, and with nothing but ids.

        Args:
            texts: the texts.
            parse: whether control tokens are parsed.
        """
        return (self.trusting if parse else self.plain).ids_of(texts)

    def decode(self, ids: Sequence[int], options: DecodeOptions) -> str:
        """Decodes ids, all of them below `size`."""
        return "".join(self.decode_pieces(ids, options))

    def decode_pieces(self, ids: Sequence[int], options: DecodeOptions) -> Iterator[str]:
        """Decodes ids as `decode` does and yields the text as it becomes certain."""
        decoder = self.decoder(options)
        for piece in slices(ids):
            yield decoder.push(piece)
        yield decoder.finish()

    def decode_byte_pieces(self, ids: Sequence[int], options: DecodeOptions) -> Iterator[bytes]:
        """Yields the bytes that ids stand for, before they are made valid UTF-8."""
        if not self.decoder_rules.concatenates:
            for text in self.decode_pieces(ids, options):
                yield text.encode()
            return
        skipped = self.control_ids if options.skip_special_tokens else frozenset()
        decoder = ConcatenatingDecoder(self)
        for piece in slices(ids):
            yield decoder.join([token_id for token_id in piece if token_id not in skipped])

    def decoder(self, options: DecodeOptions) -> IncrementalDecoder:
        """Starts decoding a sequence that is still growing."""
        return IncrementalDecoder(self, options)

    def grown(self, *changes: Change) -> "Tokenizer":
        """Returns the tokenizer after changes. This one stays as it is.

        Raises:
            BrokenChainError: the changes do not continue this vocabulary.
        """
        reference = self.reference
        roles = dict(self.roles)
        for change in changes:
            reference = chain.follow(reference, change)
            roles |= {special.role: special.token_id for special in change.special_tokens}
        new_tokens = [new for change in changes for new in change.tokens]
        marked = {one.id: one for change in changes for one in change.marked_tokens}
        try:
            trusting = self.trusting.grown({n.id: library_token(n.token) for n in new_tokens})
            plain = self.plain.grown({n.id: library_token(self._disarmed(n)) for n in new_tokens})
            if marked:
                trusting = trusting.changed({i: library_token(m.token) for i, m in marked.items()})
                # A piece of the model stays what ordinary text makes of it: without `A`, a
                # vocabulary of bytes would lose the letter.
                disarmed = {i: self._disarmed(m) for i, m in marked.items() if i in plain.tokens}
                plain = plain.changed({i: library_token(t) for i, t in disarmed.items()})
        except WrongIdError as error:
            raise BrokenChainError(reference.revision, str(error)) from None
        table = self.table.grown(new_tokens)
        return replace(
            self,
            reference=reference,
            roles=roles,
            table=table.marked(marked) if marked else table,
            control_ids=self.control_ids.union(
                (n.id for n in new_tokens if n.token.special), marked
            ),
            trusting=trusting,
            plain=plain,
            growth=Growth(tuple(new_tokens), self.growth) if new_tokens else self.growth,
        )

    def _disarmed(self, new: NewToken | MarkedToken) -> AddedToken:
        if not new.token.special:
            return new.token
        alias = self.aliases.of(new.id)
        return replace(new.token, content=alias, single_word=False, normalized=False)


def library_token(token: AddedToken) -> tokenizers.AddedToken:
    """Converts a token to the library's class."""
    return tokenizers.AddedToken(
        token.content,
        special=token.special,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
    )
