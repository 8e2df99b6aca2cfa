"""Vocabulary states, entries and changes between the wire and our own types."""

import re
from collections.abc import Iterable

from lockstep.v1 import tensor_pb2, vocabulary_admin_service_pb2, vocabulary_pb2

from rpc.errors import InvalidField
from tokenizer_service.rpcs.request_fields import check_enum, check_range
from tokenizer_service.store import StoredRevision
from tokenizer_service.text.token_table import TokenTable
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import NewToken, Reference, Role, SpecialToken

_UUID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

ROLES: dict[int, Role] = {
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_BOS: "bos",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_EOS: "eos",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD: "pad",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_UNK: "unk",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_SEP: "sep",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_CLS: "cls",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_MASK: "mask",
}


def vocabulary_ref(reference: Reference) -> vocabulary_pb2.VocabularyRef:
    """Converts the identity of a state."""
    return vocabulary_pb2.VocabularyRef(
        tokenizer_id=reference.tokenizer_id,
        revision=reference.revision,
        fingerprint=reference.fingerprint,
        size=reference.size,
    )


def read_reference(message: vocabulary_pb2.VocabularyRef) -> Reference:
    """Reads the identity of a state."""
    return Reference(
        message.tokenizer_id,
        check_range("vocabulary.revision", message.revision, 0, 2**63 - 1),
        message.fingerprint,
        message.size,
    )


def vocabulary_entries(
    table: TokenTable, ids: Iterable[int]
) -> list[vocabulary_pb2.VocabularyEntry]:
    """Converts entries of the vocabulary."""
    return [
        vocabulary_pb2.VocabularyEntry(
            id=token_id,
            token_bytes=table.token_bytes[token_id],
            type=f"TOKEN_TYPE_{table.types[token_id].name}",
            token=table.tokens[token_id],
        )
        for token_id in ids
    ]


def special_tokens(tokenizer: Tokenizer) -> list[vocabulary_pb2.SpecialToken]:
    """Converts the roles of a tokenizer."""
    return _roles(
        [SpecialToken(role, token_id) for role, token_id in tokenizer.roles.items()],
        tokenizer.table,
    )


def vocabulary_change(stored: StoredRevision, table: TokenTable) -> vocabulary_pb2.VocabularyChange:
    """Converts a revision for followers of the chain.

    Args:
        stored: the revision.
        table: the vocabulary at that revision or later.
    """
    change = vocabulary_pb2.VocabularyChange(
        vocabulary=vocabulary_ref(stored.link.vocabulary),
        parent_fingerprint=stored.link.parent_fingerprint,
        tokens=[_new_token(new) for new in stored.link.change.tokens],
        special_tokens=_roles(stored.link.change.special_tokens, table),
    )
    change.create_time.FromDatetime(stored.create_time)
    return change


def revision_message(
    stored: StoredRevision, table: TokenTable
) -> vocabulary_admin_service_pb2.Revision:
    """Converts a revision for people: without vectors."""
    change = vocabulary_change(stored, table)
    for token in change.tokens:
        token.ClearField("input_values")
        token.ClearField("output_values")
    return vocabulary_admin_service_pb2.Revision(
        vocabulary=change.vocabulary,
        parent_fingerprint=change.parent_fingerprint,
        tokens=change.tokens,
        special_tokens=change.special_tokens,
        create_time=change.create_time,
    )


def read_idempotency_key(key: str) -> str:
    """Reads the key of a changing call.

    Raises:
        InvalidField: it is not a UUID.
    """
    if not _UUID.fullmatch(key):
        raise InvalidField("idempotency_key", "must be a UUID in its 36-character form")
    return key.lower()


def read_expected_revision(
    request: vocabulary_admin_service_pb2.AddTokensRequest
    | vocabulary_admin_service_pb2.SetSpecialTokensRequest,
) -> int | None:
    """Reads the revision that the caller takes for the newest.

    Raises:
        InvalidField: it is negative.
    """
    if not request.HasField("expected_revision"):
        return None
    return check_range("expected_revision", request.expected_revision, 0, 2**63 - 1)


def read_roles(
    messages: Iterable[vocabulary_pb2.SpecialToken],
) -> tuple[SpecialToken, ...]:
    """Reads roles to assign.

    Raises:
        InvalidField: there are none, or a role is unknown or given twice.
    """
    roles: dict[Role, int] = {}
    for index, message in enumerate(messages):
        role: Role = check_enum(f"special_tokens[{index}].role", message.role, ROLES)
        if role in roles:
            raise InvalidField(f"special_tokens[{index}].role", "is assigned twice")
        roles[role] = message.token_id
    if not roles:
        raise InvalidField("special_tokens", "must not be empty")
    return tuple(SpecialToken(role, token_id) for role, token_id in roles.items())


def _new_token(new: NewToken) -> vocabulary_pb2.NewToken:
    message = vocabulary_pb2.NewToken(
        id=new.id,
        token=vocabulary_pb2.AddedToken(
            content=new.token.content,
            special=new.token.special,
            single_word=new.token.single_word,
            lstrip=new.token.lstrip,
            rstrip=new.token.rstrip,
            normalized=new.token.normalized,
        ),
        previous_ids=new.previous_ids,
        generable=new.generable,
        initialization=f"ROW_INITIALIZATION_{new.initialization.upper()}",
        copy_token_id=new.copy_token_id,
    )
    if new.input_values:
        message.input_values.CopyFrom(_values(new.input_values))
    if new.output_values:
        message.output_values.CopyFrom(_values(new.output_values))
    return message


def _values(data: bytes) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[len(data) // 4], data=data)


def _roles(roles: Iterable[SpecialToken], table: TokenTable) -> list[vocabulary_pb2.SpecialToken]:
    return [
        vocabulary_pb2.SpecialToken(
            role=f"SPECIAL_TOKEN_ROLE_{special.role.upper()}",
            token_id=special.token_id,
            content=table.tokens[special.token_id],
        )
        for special in roles
    ]
