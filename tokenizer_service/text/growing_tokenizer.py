"""A tokenizer of the library that grows without being built again for every token.

To the library one more added token is another tokenizer: the automaton that finds them
is built again, which takes tens of milliseconds for thousands of tokens, and no other
thread of the interpreter runs meanwhile. But a token that a text does not contain does
not affect its encoding. So new tokens wait: texts without them are encoded by the
previous tokenizer, and the first text that contains one has a new tokenizer built.
"""

import json
import threading
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import tokenizers

from tokenizer_service.text.content_index import ContentIndex
from tokenizer_service.text.control_tokens import disarm

# Tokens that may wait: MIN_WAITING (one large call, or many small ones), or of many tokens one in
# _WAITING_SHARE, so that building all of them again becomes rarer as they become more.
MIN_WAITING = 64
_WAITING_SHARE = 4

_PIPELINE = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


class WrongIdError(Exception):
    """The library gives a token another id than its own."""

    def __init__(self, token_id: int) -> None:
        super().__init__(f"the token with id {token_id} would get another id")


@dataclass(frozen=True)
class _Made:
    """A tokenizer of the library and the tokens that it was made of.

    Attributes:
        tokenizer: the library's.
        tokens: its added tokens, by id and in the library's order.
        index: finds their contents in texts.
    """

    tokenizer: tokenizers.Tokenizer
    tokens: dict[int, tokenizers.AddedToken]
    index: ContentIndex

    @cached_property
    def normalized_ids(self) -> Sequence[int]:
        """Tokens that are found in normalized text."""
        return [token_id for token_id, token in self.tokens.items() if token.normalized]


class _State(NamedTuple):
    """What others read is replaced as a whole, as they read without a lock.

    Attributes:
        made: has all tokens except the waiting ones.
        waiting: finds the contents of the tokens that wait.
        waiting_tokens: these tokens by id.
    """

    made: _Made
    waiting: ContentIndex
    waiting_tokens: dict[int, tokenizers.AddedToken]


class GrowingTokenizer:
    """One state. Growing one makes another; whatever is done meanwhile, the encoding stays.

    States share what was made last, so that one more token costs after thousands what it
    costs at first.
    """

    def __init__(self, state: _State) -> None:
        self._state = state
        self._making = threading.Lock()

    @classmethod
    def of(
        cls, made: tokenizers.Tokenizer, tokens: Mapping[int, tokenizers.AddedToken]
    ) -> "GrowingTokenizer":
        """Describes a state in which no token waits.

        Args:
            made: the library's tokenizer.
            tokens: its added tokens, by id and in the library's order.
        """
        index = ContentIndex({token.content: token_id for token_id, token in tokens.items()})
        return cls(_State(_Made(made, dict(tokens), index), ContentIndex({}), {}))

    @property
    def tokens(self) -> Mapping[int, tokenizers.AddedToken]:
        """The tokens matched before the model, by id and in the library's order."""
        made, _, waiting_tokens = self._state
        return ChainMap(waiting_tokens, made.tokens)

    @property
    def contents(self) -> dict[int, str]:
        """The texts of all tokens, by id."""
        return self.contents_with("")

    def contents_with(self, pattern: str) -> dict[int, str]:
        """Returns the texts of tokens that contain a text, by id."""
        made, waiting, _ = self._state
        return made.index.contents_with(pattern) | waiting.contents_with(pattern)

    @property
    def model(self) -> tokenizers.models.Model:
        """The model, which no token changes."""
        model: tokenizers.models.Model = self._state.made.tokenizer.model
        return model

    @property
    def normalizer(self) -> tokenizers.normalizers.Normalizer | None:
        """The normalizer, which no token changes."""
        made = self._state.made.tokenizer
        normalizer: tokenizers.normalizers.Normalizer | None = made.normalizer
        return normalizer

    @property
    def whole(self) -> tokenizers.Tokenizer:
        """The library's tokenizer with all tokens.

        Raises:
            WrongIdError: it gives one of them another id.
        """
        if self._state.waiting_tokens:
            self._make()
        return self._state.made.tokenizer

    def for_texts(self, texts: Iterable[str]) -> tokenizers.Tokenizer:
        """Returns a tokenizer that encodes these texts as `whole` does."""
        made, waiting, waiting_tokens = self._state
        if waiting_tokens and any(map(waiting.occurs_in, texts)):
            return self.whole
        return made.tokenizer

    def ids_of(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Encodes a few texts without the tokens of the template, and makes nothing for it.

        A tokenizer with those tokens alone that the texts contain does the same as
        `whole`, but for the ids of added tokens, which are translated.
        """
        made, waiting, waiting_tokens = self._state
        joined = "\n".join(texts)
        found = {i: waiting_tokens[i] for i in sorted(waiting.within(joined))}
        if not found:
            return [tuple(row.ids) for row in _encode(made.tokenizer, texts)]
        others = made.index.within(joined)
        if self.normalizer is not None:
            # What a normalizer makes of the texts may contain more than they do.
            others.update(made.normalized_ids)
        tokens = {i: made.tokens[i] for i in sorted(others)} | found
        narrow = _clone(made.tokenizer, tokens.values())
        ids = {narrow.token_to_id(token.content): i for i, token in tokens.items()}
        return [tuple(ids.get(i, i) for i in row.ids) for row in _encode(narrow, texts)]

    def id_of(self, token: str) -> int | None:
        """Looks up a spelling."""
        made, waiting, _ = self._state
        token_id: int | None = made.tokenizer.token_to_id(token)
        return waiting.ids.get(token) if token_id is None else token_id

    def grown(self, new: Mapping[int, tokenizers.AddedToken]) -> "GrowingTokenizer":
        """Returns the state after tokens were added, in order of their ids.

        Raises:
            WrongIdError: the library gives one of them another id.
        """
        if not new:
            return self
        made, waiting, waiting_tokens = self._state
        contents: dict[str, int] = {}
        for token_id, token in new.items():
            content = token.content
            if self.id_of(content) is not None or content in contents:
                raise WrongIdError(token_id)
            contents[content] = token_id
        waiting_tokens = {**waiting_tokens, **new}
        grown = GrowingTokenizer(_State(made, waiting.grown(contents), waiting_tokens))
        most = max(MIN_WAITING, len(made.tokens) // _WAITING_SHARE)
        if len(waiting_tokens) > most or not self._may_wait(new):
            grown._make()
        return grown

    def changed(self, tokens: Mapping[int, tokenizers.AddedToken]) -> "GrowingTokenizer":
        """Returns the state in which entries that are there are matched as these tokens.

        Args:
            tokens: by id; an added token may get another text by it, too.

        Raises:
            WrongIdError: there is no such entry with that id.
        """
        if not tokens:
            return self
        made, _, waiting_tokens = self._state
        present = {**made.tokens, **waiting_tokens}
        names = {
            old.content: token.content
            for token_id, token in tokens.items()
            if (old := present.get(token_id)) and self.model.token_to_id(old.content) is not None
        }
        library = made.tokenizer
        if any(old != new for old, new in names.items()):
            library = tokenizers.Tokenizer.from_str(disarm(json.loads(library.to_str()), names))
        present = dict(sorted({**present, **tokens}.items()))
        library = _clone(library, present.values())
        for token_id, token in present.items():
            if library.token_to_id(token.content) != token_id:
                raise WrongIdError(token_id)
        return GrowingTokenizer.of(library, present)

    def _make(self) -> None:
        with self._making:
            made, waiting, waiting_tokens = self._state
            if not waiting_tokens:
                return  # another thread did
            tokens = {**made.tokens, **waiting_tokens}
            library = _clone(made.tokenizer, tokens.values())
            for content, token_id in waiting.ids.items():
                if library.token_to_id(content) != token_id:
                    raise WrongIdError(token_id)
            index = made.index.grown(waiting.ids)
            self._state = _State(_Made(library, tokens, index), ContentIndex({}), {})

    def _may_wait(self, new: Mapping[int, tokenizers.AddedToken]) -> bool:
        """Whether the effect of these tokens is certain before the library is asked.

        Their ids are certain if they follow the id of an added token. The text in
        which normalized tokens are found is not known before it is normalized.
        """
        normalizes = self.normalizer is not None
        return min(new) - 1 in self.tokens and not (
            normalizes and any(token.normalized for token in new.values())
        )


def added_tokens(tokenizer: tokenizers.Tokenizer) -> dict[int, tokenizers.AddedToken]:
    """Returns the tokens matched before the model, in order of id."""
    return dict(sorted(tokenizer.get_added_tokens_decoder().items()))


def _clone(
    tokenizer: tokenizers.Tokenizer, tokens: Iterable[tokenizers.AddedToken]
) -> tokenizers.Tokenizer:
    """Returns a tokenizer that is equal except for its added tokens.

    The model, by far the largest part, is shared: neither of the two ever changes it.
    """
    copy = tokenizers.Tokenizer(tokenizer.model)
    for part in _PIPELINE:
        if (value := getattr(tokenizer, part)) is not None:
            setattr(copy, part, value)
    copy.add_tokens(list(tokens))
    return copy


def _encode(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> list[tokenizers.Encoding]:
    rows: list[tokenizers.Encoding] = tokenizer.encode_batch_fast(
        list(texts), add_special_tokens=False
    )
    return rows
