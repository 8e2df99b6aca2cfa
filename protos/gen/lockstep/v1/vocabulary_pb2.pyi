import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SpecialTokenRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPECIAL_TOKEN_ROLE_UNSPECIFIED: _ClassVar[SpecialTokenRole]
    SPECIAL_TOKEN_ROLE_BOS: _ClassVar[SpecialTokenRole]
    SPECIAL_TOKEN_ROLE_EOS: _ClassVar[SpecialTokenRole]
    SPECIAL_TOKEN_ROLE_PAD: _ClassVar[SpecialTokenRole]
    SPECIAL_TOKEN_ROLE_UNK: _ClassVar[SpecialTokenRole]
    SPECIAL_TOKEN_ROLE_SEP: _ClassVar[SpecialTokenRole]
    SPECIAL_TOKEN_ROLE_CLS: _ClassVar[SpecialTokenRole]
    SPECIAL_TOKEN_ROLE_MASK: _ClassVar[SpecialTokenRole]

class TokenType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKEN_TYPE_UNSPECIFIED: _ClassVar[TokenType]
    TOKEN_TYPE_NORMAL: _ClassVar[TokenType]
    TOKEN_TYPE_BYTE: _ClassVar[TokenType]
    TOKEN_TYPE_SPECIAL: _ClassVar[TokenType]
    TOKEN_TYPE_ADDED: _ClassVar[TokenType]
    TOKEN_TYPE_UNUSED: _ClassVar[TokenType]

class RowInitialization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROW_INITIALIZATION_UNSPECIFIED: _ClassVar[RowInitialization]
    ROW_INITIALIZATION_MEAN_OF_PIECES: _ClassVar[RowInitialization]
    ROW_INITIALIZATION_MEAN: _ClassVar[RowInitialization]
    ROW_INITIALIZATION_COPY: _ClassVar[RowInitialization]
    ROW_INITIALIZATION_ZERO: _ClassVar[RowInitialization]
    ROW_INITIALIZATION_VALUES: _ClassVar[RowInitialization]
SPECIAL_TOKEN_ROLE_UNSPECIFIED: SpecialTokenRole
SPECIAL_TOKEN_ROLE_BOS: SpecialTokenRole
SPECIAL_TOKEN_ROLE_EOS: SpecialTokenRole
SPECIAL_TOKEN_ROLE_PAD: SpecialTokenRole
SPECIAL_TOKEN_ROLE_UNK: SpecialTokenRole
SPECIAL_TOKEN_ROLE_SEP: SpecialTokenRole
SPECIAL_TOKEN_ROLE_CLS: SpecialTokenRole
SPECIAL_TOKEN_ROLE_MASK: SpecialTokenRole
TOKEN_TYPE_UNSPECIFIED: TokenType
TOKEN_TYPE_NORMAL: TokenType
TOKEN_TYPE_BYTE: TokenType
TOKEN_TYPE_SPECIAL: TokenType
TOKEN_TYPE_ADDED: TokenType
TOKEN_TYPE_UNUSED: TokenType
ROW_INITIALIZATION_UNSPECIFIED: RowInitialization
ROW_INITIALIZATION_MEAN_OF_PIECES: RowInitialization
ROW_INITIALIZATION_MEAN: RowInitialization
ROW_INITIALIZATION_COPY: RowInitialization
ROW_INITIALIZATION_ZERO: RowInitialization
ROW_INITIALIZATION_VALUES: RowInitialization

class VocabularyRef(_message.Message):
    __slots__ = ("tokenizer_id", "revision", "fingerprint", "size", "or_newer")
    TOKENIZER_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OR_NEWER_FIELD_NUMBER: _ClassVar[int]
    tokenizer_id: str
    revision: int
    fingerprint: str
    size: int
    or_newer: bool
    def __init__(self, tokenizer_id: _Optional[str] = ..., revision: _Optional[int] = ..., fingerprint: _Optional[str] = ..., size: _Optional[int] = ..., or_newer: _Optional[bool] = ...) -> None: ...

class AddedToken(_message.Message):
    __slots__ = ("content", "special", "single_word", "lstrip", "rstrip", "normalized")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    SINGLE_WORD_FIELD_NUMBER: _ClassVar[int]
    LSTRIP_FIELD_NUMBER: _ClassVar[int]
    RSTRIP_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    content: str
    special: bool
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    def __init__(self, content: _Optional[str] = ..., special: _Optional[bool] = ..., single_word: _Optional[bool] = ..., lstrip: _Optional[bool] = ..., rstrip: _Optional[bool] = ..., normalized: _Optional[bool] = ...) -> None: ...

class SpecialToken(_message.Message):
    __slots__ = ("role", "token_id", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: SpecialTokenRole
    token_id: int
    content: str
    def __init__(self, role: _Optional[_Union[SpecialTokenRole, str]] = ..., token_id: _Optional[int] = ..., content: _Optional[str] = ...) -> None: ...

class VocabularyEntry(_message.Message):
    __slots__ = ("id", "token_bytes", "type", "spelling")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SPELLING_FIELD_NUMBER: _ClassVar[int]
    id: int
    token_bytes: bytes
    type: TokenType
    spelling: str
    def __init__(self, id: _Optional[int] = ..., token_bytes: _Optional[bytes] = ..., type: _Optional[_Union[TokenType, str]] = ..., spelling: _Optional[str] = ...) -> None: ...

class NewToken(_message.Message):
    __slots__ = ("id", "token", "previous_ids", "generable", "initialization", "copy_token_id", "input_values", "output_values")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_IDS_FIELD_NUMBER: _ClassVar[int]
    GENERABLE_FIELD_NUMBER: _ClassVar[int]
    INITIALIZATION_FIELD_NUMBER: _ClassVar[int]
    COPY_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_VALUES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_VALUES_FIELD_NUMBER: _ClassVar[int]
    id: int
    token: AddedToken
    previous_ids: _containers.RepeatedScalarFieldContainer[int]
    generable: bool
    initialization: RowInitialization
    copy_token_id: int
    input_values: _tensor_pb2.Tensor
    output_values: _tensor_pb2.Tensor
    def __init__(self, id: _Optional[int] = ..., token: _Optional[_Union[AddedToken, _Mapping]] = ..., previous_ids: _Optional[_Iterable[int]] = ..., generable: _Optional[bool] = ..., initialization: _Optional[_Union[RowInitialization, str]] = ..., copy_token_id: _Optional[int] = ..., input_values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., output_values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class MarkedToken(_message.Message):
    __slots__ = ("id", "token")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: int
    token: AddedToken
    def __init__(self, id: _Optional[int] = ..., token: _Optional[_Union[AddedToken, _Mapping]] = ...) -> None: ...

class VocabularyChange(_message.Message):
    __slots__ = ("vocabulary", "parent_fingerprint", "tokens", "special_tokens", "create_time", "marked_tokens")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    PARENT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MARKED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    vocabulary: VocabularyRef
    parent_fingerprint: str
    tokens: _containers.RepeatedCompositeFieldContainer[NewToken]
    special_tokens: _containers.RepeatedCompositeFieldContainer[SpecialToken]
    create_time: _timestamp_pb2.Timestamp
    marked_tokens: _containers.RepeatedCompositeFieldContainer[MarkedToken]
    def __init__(self, vocabulary: _Optional[_Union[VocabularyRef, _Mapping]] = ..., parent_fingerprint: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[NewToken, _Mapping]]] = ..., special_tokens: _Optional[_Iterable[_Union[SpecialToken, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., marked_tokens: _Optional[_Iterable[_Union[MarkedToken, _Mapping]]] = ...) -> None: ...
