"""Vocabularies on the wire: what a reference means, and changes with all that they leave unsaid.

A change is hashed. What one service writes and the other reads is read and written here, as a
default that is another one on one side would break every chain.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import cast, get_args

from lockstep.v1 import vocabulary_admin_service_pb2, vocabulary_pb2

from rpc.errors import InvalidField, VocabularyMismatch
from vocabulary import (
    AddedToken,
    Change,
    Initialization,
    Link,
    MarkedToken,
    NewToken,
    Reference,
    Role,
    SpecialToken,
)
from wire.tensors import read_vector, vector
from wire.violations import Violations

_ROLES: Mapping[int, Role] = {
    vocabulary_pb2.SpecialTokenRole.Value(f"SPECIAL_TOKEN_ROLE_{role.upper()}"): role
    for role in cast(tuple[Role, ...], get_args(Role))
}
_INITIALIZATIONS: Mapping[int, Initialization] = {
    vocabulary_pb2.ROW_INITIALIZATION_UNSPECIFIED: "mean_of_pieces",
    **{
        vocabulary_pb2.RowInitialization.Value(f"ROW_INITIALIZATION_{name.upper()}"): name
        for name in cast(tuple[Initialization, ...], get_args(Initialization))
    },
}


def vocabulary_ref(reference: Reference) -> vocabulary_pb2.VocabularyRef:
    """Writes the identity of a state."""
    return vocabulary_pb2.VocabularyRef(
        tokenizer_id=reference.tokenizer_id,
        revision=reference.revision,
        fingerprint=reference.fingerprint,
        size=reference.size,
    )


def read_reference(message: vocabulary_pb2.VocabularyRef) -> Reference:
    """Reads the identity of a state, as it is given."""
    return Reference(message.tokenizer_id, message.revision, message.fingerprint, message.size)


def find_state(
    given: Reference,
    newest: Reference,
    at: Callable[[int], Reference],
    remedy: str = "encode again",
) -> Reference | None:
    """Finds the state that the reference of a request means.

    Args:
        given: the reference, of which anything may be unset.
        newest: the newest state here.
        at: returns the state of a revision up to that.
        remedy: what to do about another vocabulary.

    Returns:
        The state, or None where it is newer than what is here. Until it is here, it can only be
        known by the name of its tokenizer.

    Raises:
        InvalidField: the revision is negative, or has another size.
        VocabularyMismatch: the reference is to another vocabulary.
    """
    if given.revision < 0:
        raise InvalidField("vocabulary.revision", "must be at least 0")
    is_newer = given.revision > newest.revision
    state = newest if is_newer else at(given.revision)
    if not state.is_meant_by(given.tokenizer_id, "" if is_newer else given.fingerprint):
        raise VocabularyMismatch(given, state, remedy=remedy)
    if is_newer:
        return None
    if state.fingerprint and given.size not in (0, state.size):
        raise InvalidField("vocabulary.size", f"must be the size of the revision, {state.size}")
    return state


def read_change(message: vocabulary_pb2.VocabularyChange) -> Link:
    """Reads a change with the states that it claims to lead from and to.

    Raises:
        InvalidField: the change holds what this version does not know.
    """
    violations = Violations()
    tokens = [
        _read_new_token(f"tokens[{index}]", token, violations)
        for index, token in enumerate(message.tokens)
    ]
    roles = [
        SpecialToken(
            read_role(f"special_tokens[{index}].role", special.role, violations), special.token_id
        )
        for index, special in enumerate(message.special_tokens)
    ]
    violations.check()
    return Link(
        parent_fingerprint=message.parent_fingerprint,
        change=Change(
            tokens=tuple(tokens),
            special_tokens=tuple(roles),
            marked_tokens=tuple(
                MarkedToken(marked.id, read_added_token(marked.token))
                for marked in message.marked_tokens
            ),
        ),
        vocabulary=read_reference(message.vocabulary),
    )


def vocabulary_change(
    link: Link, create_time: datetime, tokens: Sequence[str]
) -> vocabulary_pb2.VocabularyChange:
    """Writes a change for followers of the chain.

    Args:
        link: the change.
        create_time: when it was made durable.
        tokens: how each id is spelled, after the change or later.
    """
    message = vocabulary_pb2.VocabularyChange(
        vocabulary=vocabulary_ref(link.vocabulary),
        parent_fingerprint=link.parent_fingerprint,
        tokens=[_new_token(new) for new in link.change.tokens],
        special_tokens=special_tokens(link.change.special_tokens, tokens),
        marked_tokens=[
            vocabulary_pb2.MarkedToken(id=marked.id, token=_added_token(marked.token))
            for marked in link.change.marked_tokens
        ],
    )
    message.create_time.FromDatetime(create_time)
    return message


def read_role(field: str, value: int, violations: Violations) -> Role:
    """Reads the role of a special token; one that is not known is noted."""
    return violations.known(field, value, _ROLES)


def special_tokens(
    roles: Iterable[SpecialToken], tokens: Sequence[str]
) -> list[vocabulary_pb2.SpecialToken]:
    """Writes roles, with how the token of each id is spelled."""
    return [
        vocabulary_pb2.SpecialToken(
            role=f"SPECIAL_TOKEN_ROLE_{special.role.upper()}",
            token_id=special.token_id,
            content=tokens[special.token_id],
        )
        for special in roles
    ]


def read_added_token(message: vocabulary_pb2.AddedToken) -> AddedToken:
    """Reads a token with its flags."""
    return AddedToken(
        content=message.content,
        special=message.special,
        single_word=message.single_word,
        lstrip=message.lstrip,
        rstrip=message.rstrip,
        normalized=message.normalized if message.HasField("normalized") else not message.special,
    )


def read_initialization(field: str, value: int, violations: Violations) -> Initialization:
    """Reads how rows get their values; a way that is not known is noted."""
    return violations.known(field, value, _INITIALIZATIONS)


def read_values(
    field: str,
    message: vocabulary_pb2.NewToken | vocabulary_admin_service_pb2.TokenToAdd,
    violations: Violations,
) -> tuple[bytes, bytes]:
    """Reads the values of a token's rows, `[H]` float32 each: input and output, empty if unset.

    Args:
        field: path of the token.
        message: the token.
        violations: what is wrong is noted here.
    """
    rows = [
        read_vector(f"{field}.{name}", getattr(message, name), violations)
        if message.HasField(name)
        else b""
        for name in ("input_values", "output_values")
    ]
    return rows[0], rows[1]


def _read_new_token(
    field: str, message: vocabulary_pb2.NewToken, violations: Violations
) -> NewToken:
    input_values, output_values = read_values(field, message, violations)
    return NewToken(
        id=message.id,
        token=read_added_token(message.token),
        previous_ids=tuple(message.previous_ids),
        generable=message.generable,
        initialization=read_initialization(
            f"{field}.initialization", message.initialization, violations
        ),
        copy_token_id=message.copy_token_id if message.HasField("copy_token_id") else None,
        input_values=input_values,
        output_values=output_values,
    )


def _added_token(token: AddedToken) -> vocabulary_pb2.AddedToken:
    return vocabulary_pb2.AddedToken(**asdict(token))


def _new_token(new: NewToken) -> vocabulary_pb2.NewToken:
    return vocabulary_pb2.NewToken(
        id=new.id,
        token=_added_token(new.token),
        previous_ids=new.previous_ids,
        generable=new.generable,
        initialization=f"ROW_INITIALIZATION_{new.initialization.upper()}",
        copy_token_id=new.copy_token_id,
        input_values=vector(new.input_values) if new.input_values else None,
        output_values=vector(new.output_values) if new.output_values else None,
    )
