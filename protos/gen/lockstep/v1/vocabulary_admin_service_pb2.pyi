import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import tensor_pb2 as _tensor_pb2
from lockstep.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TokenToAdd(_message.Message):
    __slots__ = ("token", "role", "initialization", "copy_token_id", "input_values", "output_values", "generable", "more_roles")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INITIALIZATION_FIELD_NUMBER: _ClassVar[int]
    COPY_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_VALUES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_VALUES_FIELD_NUMBER: _ClassVar[int]
    GENERABLE_FIELD_NUMBER: _ClassVar[int]
    MORE_ROLES_FIELD_NUMBER: _ClassVar[int]
    token: _vocabulary_pb2.AddedToken
    role: _vocabulary_pb2.SpecialTokenRole
    initialization: _vocabulary_pb2.RowInitialization
    copy_token_id: int
    input_values: _tensor_pb2.Tensor
    output_values: _tensor_pb2.Tensor
    generable: bool
    more_roles: _containers.RepeatedScalarFieldContainer[_vocabulary_pb2.SpecialTokenRole]
    def __init__(self, token: _Optional[_Union[_vocabulary_pb2.AddedToken, _Mapping]] = ..., role: _Optional[_Union[_vocabulary_pb2.SpecialTokenRole, str]] = ..., initialization: _Optional[_Union[_vocabulary_pb2.RowInitialization, str]] = ..., copy_token_id: _Optional[int] = ..., input_values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., output_values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., generable: _Optional[bool] = ..., more_roles: _Optional[_Iterable[_Union[_vocabulary_pb2.SpecialTokenRole, str]]] = ...) -> None: ...

class AddTokensRequest(_message.Message):
    __slots__ = ("tokens", "expected_revision", "idempotency_key", "dry_run", "allow_unusual_characters", "allow_text_changes", "texts")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_UNUSUAL_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_TEXT_CHANGES_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenToAdd]
    expected_revision: int
    idempotency_key: str
    dry_run: bool
    allow_unusual_characters: bool
    allow_text_changes: bool
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenToAdd, _Mapping]]] = ..., expected_revision: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., dry_run: _Optional[bool] = ..., allow_unusual_characters: _Optional[bool] = ..., allow_text_changes: _Optional[bool] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class TextTokens(_message.Message):
    __slots__ = ("ids", "token_bytes")
    IDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    token_bytes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., token_bytes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class TextEffect(_message.Message):
    __slots__ = ("before", "after", "changes_text")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CHANGES_TEXT_FIELD_NUMBER: _ClassVar[int]
    before: TextTokens
    after: TextTokens
    changes_text: bool
    def __init__(self, before: _Optional[_Union[TextTokens, _Mapping]] = ..., after: _Optional[_Union[TextTokens, _Mapping]] = ..., changes_text: _Optional[bool] = ...) -> None: ...

class AddedTokenResult(_message.Message):
    __slots__ = ("id", "existing", "previous_ids", "changes_text", "previous_token_bytes", "effect", "changed_entries", "num_changed_entries", "becomes_special")
    ID_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_IDS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_TEXT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_TOKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NUM_CHANGED_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BECOMES_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    id: int
    existing: bool
    previous_ids: _containers.RepeatedScalarFieldContainer[int]
    changes_text: bool
    previous_token_bytes: _containers.RepeatedScalarFieldContainer[bytes]
    effect: TextEffect
    changed_entries: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.VocabularyEntry]
    num_changed_entries: int
    becomes_special: bool
    def __init__(self, id: _Optional[int] = ..., existing: _Optional[bool] = ..., previous_ids: _Optional[_Iterable[int]] = ..., changes_text: _Optional[bool] = ..., previous_token_bytes: _Optional[_Iterable[bytes]] = ..., effect: _Optional[_Union[TextEffect, _Mapping]] = ..., changed_entries: _Optional[_Iterable[_Union[_vocabulary_pb2.VocabularyEntry, _Mapping]]] = ..., num_changed_entries: _Optional[int] = ..., becomes_special: _Optional[bool] = ...) -> None: ...

class AddTokensResponse(_message.Message):
    __slots__ = ("results", "vocabulary", "text_effects")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    TEXT_EFFECTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[AddedTokenResult]
    vocabulary: _vocabulary_pb2.VocabularyRef
    text_effects: _containers.RepeatedCompositeFieldContainer[TextEffect]
    def __init__(self, results: _Optional[_Iterable[_Union[AddedTokenResult, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., text_effects: _Optional[_Iterable[_Union[TextEffect, _Mapping]]] = ...) -> None: ...

class SetSpecialTokensRequest(_message.Message):
    __slots__ = ("special_tokens", "expected_revision", "idempotency_key")
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    special_tokens: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.SpecialToken]
    expected_revision: int
    idempotency_key: str
    def __init__(self, special_tokens: _Optional[_Iterable[_Union[_vocabulary_pb2.SpecialToken, _Mapping]]] = ..., expected_revision: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SetSpecialTokensResponse(_message.Message):
    __slots__ = ("vocabulary",)
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ListRevisionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("vocabulary", "parent_fingerprint", "tokens", "special_tokens", "create_time", "marked_tokens")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    PARENT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MARKED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    parent_fingerprint: str
    tokens: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.NewToken]
    special_tokens: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.SpecialToken]
    create_time: _timestamp_pb2.Timestamp
    marked_tokens: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.MarkedToken]
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., parent_fingerprint: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[_vocabulary_pb2.NewToken, _Mapping]]] = ..., special_tokens: _Optional[_Iterable[_Union[_vocabulary_pb2.SpecialToken, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., marked_tokens: _Optional[_Iterable[_Union[_vocabulary_pb2.MarkedToken, _Mapping]]] = ...) -> None: ...

class ListRevisionsResponse(_message.Message):
    __slots__ = ("revisions", "next_page_token")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[Revision]
    next_page_token: str
    def __init__(self, revisions: _Optional[_Iterable[_Union[Revision, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class VerifyRevisionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerifyRevisionsResponse(_message.Message):
    __slots__ = ("valid", "revision_count", "first_invalid_revision", "vocabulary")
    VALID_FIELD_NUMBER: _ClassVar[int]
    REVISION_COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_INVALID_REVISION_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    revision_count: int
    first_invalid_revision: int
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, valid: _Optional[bool] = ..., revision_count: _Optional[int] = ..., first_invalid_revision: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ExportRevisionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExportRevisionsResponse(_message.Message):
    __slots__ = ("data", "vocabulary")
    DATA_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, data: _Optional[bytes] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ImportRevisionsRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ImportRevisionsResponse(_message.Message):
    __slots__ = ("vocabulary", "num_revisions", "num_imported_revisions", "num_imported_replies")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    NUM_REVISIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_IMPORTED_REVISIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_IMPORTED_REPLIES_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    num_revisions: int
    num_imported_revisions: int
    num_imported_replies: int
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., num_revisions: _Optional[int] = ..., num_imported_revisions: _Optional[int] = ..., num_imported_replies: _Optional[int] = ...) -> None: ...
