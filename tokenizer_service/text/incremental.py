"""Text of a list of ids that is still growing.

`Decode` of all ids is the same machine fed at once, so the pieces of a stream
concatenate to it by construction. The text passes three stages, and each holds
back no more than what a later id can still change:

1. ids to pieces: bytes of each token, or text with one token of context;
2. bytes to characters: at most 3 bytes of an unfinished character;
3. clean-up of spaces, if asked for: the spaces and letters that a rule may need.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenizer_service.text.growing_tokenizer import GrowingTokenizer
from tokenizer_service.text.token_bytes import DecoderRules
from tokenizer_service.text.token_table import TokenTable

# Hugging Face's `clean_up_tokenization`: each rule over the whole text, in this order.
_CLEAN_UP_RULES = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
# Every character of a rule's left side that is not its last one: text that ends
# otherwise cannot be the beginning of a match, before or after other rules.
_CLEAN_UP_UNDECIDED = " 'nvr"


class Vocabulary(Protocol):
    """What decoding needs of a tokenizer: see `tokenizer_service.text.tokenizer.Tokenizer`."""

    @property
    def trusting(self) -> GrowingTokenizer: ...
    @property
    def table(self) -> TokenTable: ...
    @property
    def control_ids(self) -> frozenset[int]: ...
    @property
    def decoder_rules(self) -> DecoderRules: ...
    @property
    def cleans_up_spaces(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How ids become text.

    Attributes:
        skip_special_tokens: whether control tokens are skipped, as if they were not
            in the sequence.
        clean_up_spaces: whether spaces before punctuation are removed; None means the
            tokenizer's own setting.
    """

    skip_special_tokens: bool = True
    clean_up_spaces: bool | None = None


class PieceDecoder(Protocol):
    """Turns ids into text, in order."""

    vocabulary: Vocabulary

    def push(self, ids: Sequence[int]) -> str:
        """Returns the text that `ids` made certain."""

    def finish(self) -> str:
        """Returns what was held back, broken characters as U+FFFD."""

    @property
    def pending_bytes(self) -> int:
        """Bytes held back."""


class ConcatenatingDecoder:
    """For decoders whose text is the concatenation of token bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._spaces_to_strip = vocabulary.decoder_rules.strips_left
        self._is_first = True
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int]) -> str:
        return self._characters.decode(self.join(ids))

    def join(self, ids: Sequence[int]) -> bytes:
        """Appends ids and returns their bytes, without the leading bytes that decoding strips."""
        table = self.vocabulary.table
        data = b"".join(map(table.token_bytes.__getitem__, ids))
        if self._is_first and ids:
            self._is_first = False
            if (first := table.first_bytes.get(ids[0])) is not None:
                data = first + data[len(table.token_bytes[ids[0]]) :]
        return self._strip(data)

    def finish(self) -> str:
        return self._characters.decode(b"", final=True)

    @property
    def pending_bytes(self) -> int:
        return len(self._characters.getstate()[0])

    def _strip(self, data: bytes) -> bytes:
        while self._spaces_to_strip and data:
            if not data.startswith(b" "):
                self._spaces_to_strip = 0
                break
            data = data[1:]
            self._spaces_to_strip -= 1
        return data


class _JoiningDecoder:
    """For decoders in which a token's text depends at most on the token before it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._context: list[int] = []
        self._context_text = ""

    def push(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        text = _decode(self.vocabulary, [*self._context, *ids])
        new = text[len(self._context_text) :]
        self._context = [ids[-1]]
        self._context_text = _decode(self.vocabulary, self._context)
        return new

    def finish(self) -> str:
        return ""

    pending_bytes = 0


class _WholeDecoder:
    """For unknown decoders: all text comes at the end."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._ids: list[int] = []

    def push(self, ids: Sequence[int]) -> str:
        self._ids.extend(ids)
        return ""

    def finish(self) -> str:
        return _decode(self.vocabulary, self._ids)

    @property
    def pending_bytes(self) -> int:
        return len(self.finish().encode())


class IncrementalDecoder:
    """The text of one growing sequence. Not safe for use from two threads.

    Ids must be in the vocabulary of the table; the caller has checked them.
    """

    def __init__(self, vocabulary: Vocabulary, options: DecodeOptions) -> None:
        """Starts an empty sequence of ids of `vocabulary`."""
        self._pieces = _piece_decoder(vocabulary)
        self._skip_special_tokens = options.skip_special_tokens
        self._clean_up_spaces = options.clean_up_spaces
        if options.clean_up_spaces is None:
            self._clean_up_spaces = vocabulary.cleans_up_spaces
        self._undecided = ""

    def follow(self, vocabulary: Vocabulary) -> None:
        """Goes on with a newer revision, in which old ids mean what they meant."""
        self._pieces.vocabulary = vocabulary

    def push(self, ids: Sequence[int]) -> str:
        """Appends ids and returns the text that became certain."""
        if self._skip_special_tokens:
            control_ids = self._pieces.vocabulary.control_ids
            ids = [token_id for token_id in ids if token_id not in control_ids]
        return self._clean_up(self._pieces.push(ids), is_last=False)

    def finish(self) -> str:
        """Ends the sequence and returns what was held back."""
        return self._clean_up(self._pieces.finish(), is_last=True)

    @property
    def pending_bytes(self) -> int:
        """Bytes held back because a later id may still change them."""
        return self._pieces.pending_bytes + len(self._undecided.encode())

    def _clean_up(self, text: str, *, is_last: bool) -> str:
        if not self._clean_up_spaces:
            return text
        text = self._undecided + text
        certain = len(text) if is_last else len(text.rstrip(_CLEAN_UP_UNDECIDED))
        self._undecided = text[certain:]
        return clean_up(text[:certain])


def _piece_decoder(vocabulary: Vocabulary) -> PieceDecoder:
    """Returns the first stage that suits a decoder."""
    if vocabulary.decoder_rules.concatenates:
        return ConcatenatingDecoder(vocabulary)
    if vocabulary.decoder_rules.joins:
        return _JoiningDecoder(vocabulary)
    return _WholeDecoder(vocabulary)


def clean_up(text: str) -> str:
    """Removes spaces before punctuation and English contractions, as Hugging Face does."""
    for old, new in _CLEAN_UP_RULES:
        text = text.replace(old, new)
    return text


def _decode(vocabulary: Vocabulary, ids: list[int]) -> str:
    # The batch method, because it alone lets other threads run meanwhile.
    return vocabulary.trusting.whole.decode_batch([ids], skip_special_tokens=False)[0]
