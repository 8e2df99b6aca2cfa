"""What was asked about an encoding, and the rows that answer it. No wire here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import tokenizers

from tokenizer_service.text import offsets, truncation
from tokenizer_service.text.padding import Side
from tokenizer_service.text.token_table import TokenTable

_T = TypeVar("_T")

# Of text that is encoded at once.
_GROUP_CHARACTERS = 2**15


@dataclass(frozen=True, slots=True)
class Text:
    """A text, or a pair of texts, to encode."""

    text: str
    pair: str | None = None

    @property
    def num_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode()) + len((self.pair or "").encode())


@dataclass(frozen=True, slots=True)
class Truncation:
    """How long a row may be, template tokens included, and which side is cut."""

    max_length: int
    side: Side = "right"


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How texts are encoded and what is returned in addition to ids.

    Attributes:
        add_special_tokens: whether the tokenizer's template tokens are added.
        parse_special_tokens: whether control tokens spelled in the text are parsed.
        truncation: how rows are cut, None for not at all.
        offset_unit: the unit of offsets, None for no offsets.
        special_tokens_mask: whether template tokens are marked.
        word_ids: whether word indices are returned.
        tokens: whether token strings are returned.
        token_bytes: whether token bytes are returned.
        token_type_ids: whether the text of a pair is returned for each token.
    """

    add_special_tokens: bool = True
    parse_special_tokens: bool = False
    truncation: Truncation | None = None
    offset_unit: offsets.Unit | None = None
    special_tokens_mask: bool = False
    word_ids: bool = False
    tokens: bool = False
    token_bytes: bool = False
    token_type_ids: bool = False

    @property
    def detailed(self) -> bool:
        """Whether anything in addition to ids was asked for."""
        return self.offset_unit is not None or any(
            (
                self.special_tokens_mask,
                self.word_ids,
                self.tokens,
                self.token_bytes,
                self.token_type_ids,
            )
        )


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One encoded item. Lists are as long as `ids`, or empty when not asked for."""

    ids: Sequence[int]
    num_truncated: int = 0
    spans: offsets.Spans = ()
    special_tokens_mask: Sequence[int] = ()
    word_ids: Sequence[int] = ()
    tokens: Sequence[str] = ()
    token_bytes: Sequence[bytes] = ()
    token_type_ids: Sequence[int] = ()


def groups(items: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Yields items in groups that are each encoded in milliseconds, if no item is long."""
    start = num_characters = 0
    for end, item in enumerate(items):
        num_characters += len(item.text) + len(item.pair or "")
        if num_characters >= _GROUP_CHARACTERS:
            yield items[start : end + 1]
            start, num_characters = end + 1, 0
    if start < len(items):
        yield items[start:]


def encode_rows(
    tokenizer: tokenizers.Tokenizer,
    table: TokenTable,
    items: Sequence[Text],
    options: EncodeOptions,
) -> list[EncodedRow]:
    """Encodes items one by one; a row never depends on the others.

    Truncation here is a choice among finished tokens. The library's own truncation
    and padding are settings of the tokenizer, which requests would share.
    """
    # The batch methods, because they alone let other threads run meanwhile.
    encode = tokenizer.encode_batch_fast  # without offsets and word ids
    if options.offset_unit is not None or options.word_ids:
        encode = tokenizer.encode_batch
    inputs = [item.text if item.pair is None else (item.text, item.pair) for item in items]
    encodings = encode(inputs, add_special_tokens=options.add_special_tokens)
    return [
        _row(encoding, table, item, options)
        for encoding, item in zip(encodings, items, strict=True)
    ]


def _row(
    encoding: tokenizers.Encoding, table: TokenTable, item: Text, options: EncodeOptions
) -> EncodedRow:
    length = len(encoding)
    kept = list(range(length))
    if options.truncation is not None and length > options.truncation.max_length:
        kept = truncation.kept_positions(
            encoding.sequence_ids,
            max_length=options.truncation.max_length,
            side=options.truncation.side,
        )

    def pick(values: Sequence[_T]) -> Sequence[_T]:
        return values if len(kept) == length else [values[place] for place in kept]

    ids = pick(encoding.ids)
    if not options.detailed:
        return EncodedRow(ids, length - len(kept))
    return EncodedRow(
        ids=ids,
        num_truncated=length - len(kept),
        spans=pick(_spans(encoding, item, options.offset_unit)) if options.offset_unit else (),
        special_tokens_mask=(
            pick(encoding.special_tokens_mask) if options.special_tokens_mask else ()
        ),
        word_ids=(
            [-1 if word is None else word for word in pick(encoding.word_ids)]
            if options.word_ids
            else ()
        ),
        tokens=[table.tokens[token_id] for token_id in ids] if options.tokens else (),
        token_bytes=[table.token_bytes[token_id] for token_id in ids]
        if options.token_bytes
        else (),
        token_type_ids=pick(encoding.type_ids) if options.token_type_ids else (),
    )


def _spans(encoding: tokenizers.Encoding, item: Text, unit: offsets.Unit) -> offsets.Spans:
    """Returns the spans of all tokens, each counted in its own text of a pair."""
    spans: list[tuple[int, int]] = encoding.offsets
    if item.pair is None:
        return offsets.convert(spans, item.text, unit)
    in_first = offsets.convert(_owned(spans, encoding.sequence_ids, 0), item.text, unit)
    in_second = offsets.convert(_owned(spans, encoding.sequence_ids, 1), item.pair, unit)
    owners = encoding.sequence_ids
    return [
        two if owner == 1 else one
        for one, two, owner in zip(in_first, in_second, owners, strict=True)
    ]


def _owned(spans: offsets.Spans, owners: Sequence[int | None], text: int) -> list[tuple[int, int]]:
    """Returns the spans of one text's tokens and (0, 0) for all others."""
    return [span if owner == text else (0, 0) for span, owner in zip(spans, owners, strict=True)]
