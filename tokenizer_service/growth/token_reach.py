"""Whether every added token can be matched, old ones included.

Tokens take text from each other: those matched before normalization go first, then
those matched after it, and the normalizer may make two of one text. The library
accepts all of that; here the tokenizer that would be is asked.
"""

from collections.abc import Iterable, Mapping

from rpc.errors import FieldViolation, InvalidField
from tokenizer_service.growth.token_effects import ids_of
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import AddedToken, MarkedToken, NewToken


def check_normalized(tokenizer: Tokenizer, tokens: Mapping[int, AddedToken]) -> None:
    """Checks that the normalizer leaves something of each token to match.

    Args:
        tokenizer: whose normalizer it is.
        tokens: the new tokens by their place in the request.

    Raises:
        InvalidField: nothing is left of one.
    """
    _raise(
        FieldViolation(_field(index), "is removed by the normalizer")
        for index, token in tokens.items()
        if token.normalized and not tokenizer.normalized(token.content)
    )


def check_reach(
    before: Tokenizer, after: Tokenizer, added: Mapping[int, NewToken | MarkedToken]
) -> None:
    """Checks that the text of every added token is encoded to its id.

    Args:
        before: the tokenizer without the new tokens.
        after: the tokenizer with them.
        added: the new tokens, and those that become special, by their place in the request.

    Raises:
        InvalidField: a new token is never matched, or takes the text of an older one.
    """
    texts = [new.token.content for new in added.values()]
    parsed, plain = (ids_of(after, texts, parse=parse) for parse in (True, False))
    _raise(
        FieldViolation(
            _field(index),
            "would never be matched: its flags, the normalizer or another token take its text",
        )
        for (index, new), *encodings in zip(added.items(), parsed, plain, strict=True)
        if any(ids != (new.id,) for ids in encodings[: 1 if new.token.special else 2])
    )
    normalized = None
    if before.trusting.normalizer is not None and any(n.token.normalized for n in added.values()):
        old = before.trusting.contents
        normalized = {token_id: before.normalized(content) for token_id, content in old.items()}
    for index, new in added.items():
        touched = before.trusting.contents_with(new.token.content)
        if new.token.normalized and normalized is not None:
            pattern = before.normalized(new.token.content)
            touched = {
                token_id: old[token_id] for token_id in old if pattern in normalized[token_id]
            }
        if touched and (taken := _taken(before, after, touched)):
            problem = f"would take the text of the token with id {taken[0]}"
            raise InvalidField(_field(index), problem)


def _taken(before: Tokenizer, after: Tokenizer, touched: Mapping[int, str]) -> list[int]:
    """Returns the older tokens that lose their text."""
    encodings = zip(
        touched,
        ids_of(before, list(touched.values()), parse=True),
        ids_of(after, list(touched.values()), parse=True),
        strict=True,
    )
    return [token_id for token_id, was, is_now in encodings if was == (token_id,) != is_now]


def _field(index: int) -> str:
    return f"tokens[{index}].token.content"


def _raise(violations: Iterable[FieldViolation]) -> None:
    if found := list(violations):
        raise InvalidField.of(found)
