"""A tokenizer of the library that grows without being made anew for every token.

To the library one more added token is another tokenizer: the automaton that finds them
is built again, which takes tens of milliseconds for thousands of tokens, and no other
thread of the interpreter runs meanwhile. But a token that a text does not contain has
no part in its encoding. So new tokens wait: texts without them are encoded by the
tokenizer that was made before, and the first text that has one gets a new one made.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence

import tokenizers

# So many tokens wait at most: one large call, or many small ones.
MAX_WAITING = 64

_PIPELINE = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


class WrongIdError(Exception):
    """The library gives a token another id than it is to have."""

    def __init__(self, token_id: int) -> None:
        super().__init__(f"the token with id {token_id} would have another one")


class GrowingTokenizer:
    """One state. Growing one makes another; whatever is done meanwhile, the encoding stays.

    Attributes:
        tokens: the tokens matched before the model, by id and in the library's order.
        contents: their texts, which the library makes anew whenever it is asked.
    """

    def __init__(
        self,
        made: tokenizers.Tokenizer,
        tokens: Mapping[int, tokenizers.AddedToken],
        waiting: Mapping[str, int] | None = None,
        contents: Mapping[int, str] | None = None,
    ) -> None:
        """Describes a state.

        Args:
            made: has all tokens but those that wait.
            tokens: all tokens.
            waiting: ids of tokens that wait, by content.
            contents: texts of all tokens, where they are known.
        """
        self.tokens = tokens
        self._made = made
        self._waiting = waiting or {}
        if contents is None:
            contents = {token_id: token.content for token_id, token in tokens.items()}
        self.contents = contents
        self._making = threading.Lock()

    @property
    def model(self) -> tokenizers.models.Model:
        """The model, which no token changes."""
        model: tokenizers.models.Model = self._made.model
        return model

    @property
    def normalizer(self) -> tokenizers.normalizers.Normalizer | None:
        """The normalizer, which no token changes."""
        normalizer: tokenizers.normalizers.Normalizer | None = self._made.normalizer
        return normalizer

    @property
    def whole(self) -> tokenizers.Tokenizer:
        """The library's tokenizer with all tokens.

        Raises:
            WrongIdError: it gives one of them another id.
        """
        if self._waiting:
            self._make()
        return self._made

    def for_texts(self, texts: Iterable[str]) -> tokenizers.Tokenizer:
        """Returns a tokenizer that encodes these texts as `whole` does."""
        if waiting := self._waiting:
            for text in texts:
                if any(content in text for content in waiting):
                    return self.whole
        return self._made

    def ids_of(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Encodes a few texts without the tokens of the template, and makes nothing for it.

        A tokenizer with those tokens alone that the texts contain does the same as
        `whole`, but for the ids of added tokens, which are translated.
        """
        joined = "\n".join(texts)
        if not any(content in joined for content in self._waiting):
            return [tuple(row.ids) for row in _encode(self._made, texts)]
        # What a normalizer makes of the texts may contain more than they do.
        normalizes = self.normalizer is not None
        found = [
            token_id
            for token_id, content in self.contents.items()
            if content in joined or (normalizes and self.tokens[token_id].normalized)
        ]
        narrow = _clone(self._made, [self.tokens[token_id] for token_id in found])
        ids = {narrow.token_to_id(self.contents[token_id]): token_id for token_id in found}
        return [tuple(ids.get(i, i) for i in row.ids) for row in _encode(narrow, texts)]

    def id_of(self, token: str) -> int | None:
        """Looks up a spelling."""
        waiting = self._waiting  # before what was made, which may come to have them
        token_id: int | None = self._made.token_to_id(token)
        return waiting.get(token) if token_id is None else token_id

    def grown(self, new: Mapping[int, tokenizers.AddedToken]) -> "GrowingTokenizer":
        """Returns the state after tokens were added, in order of their ids.

        Raises:
            WrongIdError: the library gives one of them another id.
        """
        if not new:
            return self
        waiting = dict(self._waiting)  # before what was made, which may come to have them
        made = self._made
        contents = {token_id: token.content for token_id, token in new.items()}
        for token_id, content in contents.items():
            if self.id_of(content) is not None or content in waiting:
                raise WrongIdError(token_id)
            waiting[content] = token_id
        grown = GrowingTokenizer(
            made, {**self.tokens, **new}, waiting, {**self.contents, **contents}
        )
        if len(waiting) > MAX_WAITING or not self._may_wait(new):
            grown._make()
        return grown

    def _make(self) -> None:
        with self._making:
            if not (waiting := self._waiting):
                return  # somebody else did
            made = _clone(self._made, self.tokens.values())
            for content, token_id in waiting.items():
                if made.token_to_id(content) != token_id:
                    raise WrongIdError(token_id)
            # In this order, as others read both without the lock.
            self._made = made
            self._waiting = {}

    def _may_wait(self, new: Mapping[int, tokenizers.AddedToken]) -> bool:
        """Whether it is certain what these tokens do before the library is asked.

        Their ids are where they follow that of an added token. The text that
        normalized tokens are found in is not known before it is normalized.
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
    """Returns an equal tokenizer but for its added tokens.

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
