from lockstep.v1 import model_info_service_pb2 as _model_info_service_pb2
from lockstep.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetVocabularyStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVocabularyStateResponse(_message.Message):
    __slots__ = ("vocabulary", "reserved_row_count", "added_rows_sha256", "follower_connected", "following")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    RESERVED_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    ADDED_ROWS_SHA256_FIELD_NUMBER: _ClassVar[int]
    FOLLOWER_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    reserved_row_count: int
    added_rows_sha256: str
    follower_connected: bool
    following: _model_info_service_pb2.VocabularyFollowing
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., reserved_row_count: _Optional[int] = ..., added_rows_sha256: _Optional[str] = ..., follower_connected: _Optional[bool] = ..., following: _Optional[_Union[_model_info_service_pb2.VocabularyFollowing, _Mapping]] = ...) -> None: ...

class FlushPrefixCacheRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FlushPrefixCacheResponse(_message.Message):
    __slots__ = ("token_count", "vocabulary")
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    token_count: int
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, token_count: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("running_sequence_count", "vocabulary")
    RUNNING_SEQUENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    running_sequence_count: int
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, running_sequence_count: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("vocabulary",)
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...
