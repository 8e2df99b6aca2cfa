"""Which tokens may be added, and what adding them would do."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import tokenizers

from rpc.errors import FieldViolation, InvalidField, TokenExists
from tokenizer_service.growth import token_reach
from tokenizer_service.growth.token_effects import entries_with, ids_of
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import (
    AddedToken,
    Change,
    Initialization,
    MarkedToken,
    NewToken,
    Role,
    SpecialToken,
)

MAX_CHARACTERS = 64
MAX_BYTES = 256

_OF_TEXT = (
    "it is a piece of ordinary text, which decoding would leave out for every caller if it were "
    "special: set allow_text_changes to make it special all the same, or add a token of another "
    "text"
)
_ROWS_STAY = "what a revision says about rows stays: omit it to use the token as it is"

_PROSE_PUNCTUATION = frozenset(".,;:!?'\"()-\u2013\u2014\u2018\u2019\u201c\u201d\u2026")


@dataclass(frozen=True, slots=True)
class TokenToAdd:
    """A token as requested, with the members of `vocabulary.NewToken`.

    Attributes:
        roles: roles for the token.
        generable: None for the default of the initialization.
    """

    token: AddedToken
    roles: tuple[Role, ...] = ()
    initialization: Initialization = "mean_of_pieces"
    copy_token_id: int | None = None
    input_values: bytes = b""
    output_values: bytes = b""
    generable: bool | None = None


@dataclass(frozen=True, slots=True)
class AdditionRules:
    """What this call, and this server, allow.

    Attributes:
        unusual_characters: whether text that is not NFC, or bidirectional controls, is.
        text_changes: whether plain tokens that change ordinary text are, and pieces of ordinary
            text that become special.
        max_added_tokens: most tokens that all revisions may add.
    """

    unusual_characters: bool = False
    text_changes: bool = False
    max_added_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class AdditionResult:
    """The result for one token."""

    id: int
    existing: bool
    becomes_special: bool
    previous_ids: tuple[int, ...]
    changes_text: bool


@dataclass(frozen=True, slots=True)
class Addition:
    """What a call does.

    Attributes:
        change: the change; it may be empty.
        after: the tokenizer after it.
        results: one per token.
    """

    change: Change
    after: Tokenizer
    results: tuple[AdditionResult, ...]


def plan(
    tokenizer: Tokenizer, base_size: int, tokens: Sequence[TokenToAdd], rules: AdditionRules
) -> Addition:
    """Works out ids and effects of adding tokens. Changes nothing.

    Raises:
        InvalidField: a token is not allowed.
        TokenExists: a token exists with other attributes.
    """
    _check_contents([new.token for new in tokens], rules)
    token_reach.check_normalized(tokenizer, {i: new.token for i, new in enumerate(tokens)})
    previous = ids_of(tokenizer, [new.token.content for new in tokens], parse=False)
    results: list[AdditionResult] = []
    added: dict[int, NewToken] = {}
    marked: dict[int, MarkedToken] = {}
    roles: list[SpecialToken] = []
    for index, (new, previous_ids) in enumerate(zip(tokens, previous, strict=True)):
        if new.roles and not new.token.special:
            raise InvalidField(f"tokens[{index}].role", "needs a token that is special")
        existing = _existing_id(tokenizer, new.token, index)
        is_marked = False
        if existing is not None:
            _check_rows(tokenizer.addition_of(existing), new, existing, index)
            is_marked = new.token.special and existing not in tokenizer.control_ids
            changes_text = is_marked and _is_of_text(tokenizer, new.token, existing)
            if changes_text and not rules.text_changes:
                raise TokenExists(
                    index=index, token_id=existing, attribute="special", remedy=_OF_TEXT
                )
            if is_marked:
                marked[index] = MarkedToken(existing, new.token)
        else:
            changes_text = not new.token.special and _changes_text(tokenizer, new.token)
            _check_addition(tokenizer, new, previous_ids, index)
            if changes_text and not rules.text_changes:
                raise InvalidField(
                    f"tokens[{index}].token.content",
                    "occurs in ordinary text, whose encoding would change for every caller; "
                    "make the token special or set allow_text_changes",
                )
        token_id = tokenizer.size + len(added) if existing is None else existing
        results.append(
            AdditionResult(token_id, existing is not None, is_marked, previous_ids, changes_text)
        )
        if existing is None:
            added[index] = _new_token(new, token_id, previous_ids)
        roles += [
            SpecialToken(role, token_id)
            for role in new.roles
            if tokenizer.roles.get(role) != token_id
        ]
    room = base_size + rules.max_added_tokens - tokenizer.size
    if len(added) > room:
        raise InvalidField("tokens", f"exceed the limit on added tokens; {max(room, 0)} are left")
    change = Change(tuple(added.values()), tuple(roles), tuple(marked.values()))
    after = tokenizer if change == Change() else tokenizer.grown(change)
    token_reach.check_reach(tokenizer, after, {**added, **marked})
    return Addition(change, after, tuple(results))


def _check_contents(tokens: Sequence[AddedToken], rules: AdditionRules) -> None:
    violations = []
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        problem = content_problem(token.content, allow_unusual=rules.unusual_characters)
        if problem is None:
            first = seen.setdefault(token.content, index)
            problem = f"repeats tokens[{first}]" if first != index else None
        if problem is not None:
            violations.append(FieldViolation(f"tokens[{index}].token.content", problem))
    if violations:
        raise InvalidField.of(violations)


def content_problem(content: str, *, allow_unusual: bool) -> str | None:
    """Returns why a text must not be a token, None when it may."""
    if not 1 <= len(content) <= MAX_CHARACTERS or len(content.encode()) > MAX_BYTES:
        return f"must have 1 to {MAX_CHARACTERS} characters and at most {MAX_BYTES} bytes of UTF-8"
    if "\0" in content:
        return "must not hold NUL"
    if content.isspace():
        return "must not be white space alone"
    if allow_unusual:
        return None
    categories = {unicodedata.category(character) for character in content}
    if not unicodedata.is_normalized("NFC", content):
        return "must be in Unicode normal form C, or set allow_unusual_characters"
    if not categories.isdisjoint({"Cc", "Cf", "Co", "Cn", "Zl", "Zp"}):
        return (
            "must not hold control, invisible, bidirectional, private or unassigned "
            "characters, or set allow_unusual_characters"
        )
    return None


def _existing_id(tokenizer: Tokenizer, token: AddedToken, index: int) -> int | None:
    """Returns the id of an equal token, or of one that may become special; None without one.

    A piece of the model's vocabulary equals a plain token without flags that stands
    for the same text.

    Raises:
        TokenExists: the spelling exists with other attributes.
    """
    token_id = tokenizer.id_of(token.content)
    if token_id is None:
        return None
    present: AddedToken | tokenizers.AddedToken | None = tokenizer.added_tokens.get(token_id)
    if present is None:
        if tokenizer.table.token_bytes[token_id] != token.content.encode():
            raise TokenExists(
                index=index,
                token_id=token_id,
                attribute="bytes",
                remedy="what is spelled like this inside of the tokenizer stands for another "
                "text: add a token of another text",
            )
        present = AddedToken(token.content, normalized=token.normalized)
    if token.special and not present.special:
        return token_id
    for flag in ("special", "single_word", "lstrip", "rstrip", "normalized"):
        if (value := getattr(present, flag)) != getattr(token, flag):
            raise TokenExists(
                index=index,
                token_id=token_id,
                attribute=flag,
                remedy=f"set {flag} to {str(value).lower()} to use it as it is",
            )
    return token_id


def _check_rows(present: NewToken | None, new: TokenToAdd, token_id: int, index: int) -> None:
    """Checks that a call asks for the rows that an existing token has.

    Args:
        present: how the token was added; None for one of revision 0, whose rows are the model's.
        new: what was asked for. The default initialization says nothing.
        token_id: the token's id.
        index: of the token in the call.

    Raises:
        TokenExists: the rows differ; a call cannot change them.
    """
    generable = True if present is None else present.generable
    if new.generable not in (None, generable):
        raise TokenExists(index=index, token_id=token_id, attribute="generable", remedy=_ROWS_STAY)
    if new.initialization == "mean_of_pieces":
        return
    if present is None or _rows(new) != _rows(present):
        names = {"values": "input_values and output_values", "copy": "copy_token_id"}
        attribute = names.get(new.initialization, "initialization")
        raise TokenExists(index=index, token_id=token_id, attribute=attribute, remedy=_ROWS_STAY)


def _rows(token: TokenToAdd | NewToken) -> tuple[object, ...]:
    """Returns all that decides the rows of a token; no output values mean the input values."""
    output_values = token.output_values or token.input_values
    return token.initialization, token.copy_token_id, token.input_values, output_values


def _changes_text(tokenizer: Tokenizer, token: AddedToken, token_id: int | None = None) -> bool:
    """Whether ordinary text is likely to contain a plain token.

    It is, unless signs that prose does not use stand at both ends (`<tool>`, `[[x]]`)
    and no piece of the vocabulary, made from ordinary text, contains it.

    Args:
        tokenizer: the tokenizer.
        token: the token.
        token_id: the id that it has; None for a new one.
    """
    if not (_sets_apart(token.content[0]) and _sets_apart(token.content[-1])):
        return True
    return any(piece != token_id for piece in entries_with(tokenizer, token))


def _is_of_text(tokenizer: Tokenizer, token: AddedToken, token_id: int) -> bool:
    """Whether ordinary text is likely to contain an entry that is to become special."""
    if _changes_text(tokenizer, replace(token, special=False), token_id):
        return True
    (ids,) = ids_of(tokenizer, [token.content], parse=False)
    return token_id in ids and token_id not in tokenizer.added_tokens


def _sets_apart(character: str) -> bool:
    is_of_words = character.isalnum() or unicodedata.category(character)[0] == "M"
    return not (is_of_words or character.isspace() or character in _PROSE_PUNCTUATION)


def _check_addition(
    tokenizer: Tokenizer, new: TokenToAdd, previous_ids: tuple[int, ...], index: int
) -> None:
    if new.initialization == "mean_of_pieces" and not previous_ids:
        raise InvalidField(
            f"tokens[{index}].initialization",
            "has no pieces to take the mean of; choose another one",
        )
    if new.copy_token_id is not None and not 0 <= new.copy_token_id < tokenizer.size:
        raise InvalidField(
            f"tokens[{index}].copy_token_id", f"must be an id in [0, {tokenizer.size})"
        )


def _new_token(new: TokenToAdd, token_id: int, previous_ids: tuple[int, ...]) -> NewToken:
    generable = new.initialization == "values" if new.generable is None else new.generable
    return NewToken(
        id=token_id,
        token=new.token,
        previous_ids=previous_ids,
        generable=generable,
        initialization=new.initialization,
        copy_token_id=new.copy_token_id,
        input_values=new.input_values,
        output_values=new.output_values,
    )
