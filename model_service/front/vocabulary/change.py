"""A change of the vocabulary as it comes from the tokenizer service."""

import math

from lockstep.v1 import tensor_pb2, vocabulary_pb2

from model_service.protocol import NewRow
from vocabulary import (
    AddedToken,
    Change,
    Initialization,
    Link,
    NewToken,
    Reference,
    Role,
    SpecialToken,
)

_INITIALIZATIONS: dict[int, Initialization] = {
    vocabulary_pb2.ROW_INITIALIZATION_MEAN_OF_PIECES: "mean_of_pieces",
    vocabulary_pb2.ROW_INITIALIZATION_MEAN: "mean",
    vocabulary_pb2.ROW_INITIALIZATION_COPY: "copy",
    vocabulary_pb2.ROW_INITIALIZATION_ZERO: "zero",
    vocabulary_pb2.ROW_INITIALIZATION_VALUES: "values",
}

_ROLES: dict[int, Role] = {
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_BOS: "bos",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_EOS: "eos",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD: "pad",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_UNK: "unk",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_SEP: "sep",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_CLS: "cls",
    vocabulary_pb2.SPECIAL_TOKEN_ROLE_MASK: "mask",
}


def read_link(message: vocabulary_pb2.VocabularyChange) -> Link:
    """Reads a change with the states that it claims to lead from and to.

    Raises:
        ValueError: the change holds a value that this version does not know.
    """
    return Link(
        parent_fingerprint=message.parent_fingerprint,
        change=Change(
            tokens=tuple(_read_token(token) for token in message.tokens),
            special_tokens=tuple(_read_role(special) for special in message.special_tokens),
        ),
        vocabulary=read_reference(message.vocabulary),
    )


def new_rows(change: Change) -> list[NewRow]:
    """Returns the rows that a change adds, as the engine takes them."""
    return [
        NewRow(
            token_id=token.id,
            initialization=token.initialization,
            generable=token.generable,
            previous_ids=list(token.previous_ids),
            copy_token_id=token.copy_token_id,
            input_values=token.input_values,
            output_values=token.output_values,
            token_bytes=token.token.content.encode(),
        )
        for token in change.tokens
    ]


def read_reference(message: vocabulary_pb2.VocabularyRef) -> Reference:
    """Reads the identity of a vocabulary state."""
    return Reference(
        tokenizer_id=message.tokenizer_id,
        revision=message.revision,
        fingerprint=message.fingerprint,
        size=message.size,
    )


def _read_token(message: vocabulary_pb2.NewToken) -> NewToken:
    initialization = _INITIALIZATIONS.get(message.initialization)
    if initialization is None:
        raise ValueError(f"token {message.id} is initialized in a way unknown here")
    return NewToken(
        id=message.id,
        token=_read_added_token(message.token),
        previous_ids=tuple(message.previous_ids),
        generable=message.generable,
        initialization=initialization,
        copy_token_id=message.copy_token_id if message.HasField("copy_token_id") else None,
        input_values=_read_values(message.input_values),
        output_values=_read_values(message.output_values),
    )


def _read_added_token(message: vocabulary_pb2.AddedToken) -> AddedToken:
    normalized = message.normalized if message.HasField("normalized") else not message.special
    return AddedToken(
        content=message.content,
        special=message.special,
        single_word=message.single_word,
        lstrip=message.lstrip,
        rstrip=message.rstrip,
        normalized=normalized,
    )


def _read_role(message: vocabulary_pb2.SpecialToken) -> SpecialToken:
    role = _ROLES.get(message.role)
    if role is None:
        raise ValueError(f"token {message.token_id} has a role unknown here")
    return SpecialToken(role, message.token_id)


def _read_values(tensor: tensor_pb2.Tensor) -> bytes:
    """Returns the bytes of a `[H]` float32 tensor, or nothing when it is unset."""
    if not tensor.data:
        return b""
    num_bytes = 4 * math.prod(tensor.shape)
    if tensor.dtype != tensor_pb2.DATA_TYPE_FLOAT32 or len(tensor.data) != num_bytes:
        raise ValueError("the values of a new row are not FLOAT32 of the shape they claim")
    return tensor.data
