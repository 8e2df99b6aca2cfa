import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from lockstep.v1 import generation_pb2 as _generation_pb2
from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import model_service_pb2 as _model_service_pb2
from lockstep.v1 import tensor_pb2 as _tensor_pb2
from lockstep.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VocabularyFollowState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOCABULARY_FOLLOW_STATE_UNSPECIFIED: _ClassVar[VocabularyFollowState]
    VOCABULARY_FOLLOW_STATE_BASE: _ClassVar[VocabularyFollowState]
    VOCABULARY_FOLLOW_STATE_FOLLOWING: _ClassVar[VocabularyFollowState]
    VOCABULARY_FOLLOW_STATE_CATCHING_UP: _ClassVar[VocabularyFollowState]
    VOCABULARY_FOLLOW_STATE_DISCONNECTED: _ClassVar[VocabularyFollowState]
    VOCABULARY_FOLLOW_STATE_CONFLICT: _ClassVar[VocabularyFollowState]

class DecodeGraphState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECODE_GRAPH_STATE_UNSPECIFIED: _ClassVar[DecodeGraphState]
    DECODE_GRAPH_STATE_OFF: _ClassVar[DecodeGraphState]
    DECODE_GRAPH_STATE_COMPILING: _ClassVar[DecodeGraphState]
    DECODE_GRAPH_STATE_READY: _ClassVar[DecodeGraphState]
    DECODE_GRAPH_STATE_UNAVAILABLE: _ClassVar[DecodeGraphState]

class SupportLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUPPORT_LEVEL_UNSPECIFIED: _ClassVar[SupportLevel]
    SUPPORT_LEVEL_SUPPORTED: _ClassVar[SupportLevel]
    SUPPORT_LEVEL_SLOW: _ClassVar[SupportLevel]
    SUPPORT_LEVEL_UNSUPPORTED: _ClassVar[SupportLevel]
VOCABULARY_FOLLOW_STATE_UNSPECIFIED: VocabularyFollowState
VOCABULARY_FOLLOW_STATE_BASE: VocabularyFollowState
VOCABULARY_FOLLOW_STATE_FOLLOWING: VocabularyFollowState
VOCABULARY_FOLLOW_STATE_CATCHING_UP: VocabularyFollowState
VOCABULARY_FOLLOW_STATE_DISCONNECTED: VocabularyFollowState
VOCABULARY_FOLLOW_STATE_CONFLICT: VocabularyFollowState
DECODE_GRAPH_STATE_UNSPECIFIED: DecodeGraphState
DECODE_GRAPH_STATE_OFF: DecodeGraphState
DECODE_GRAPH_STATE_COMPILING: DecodeGraphState
DECODE_GRAPH_STATE_READY: DecodeGraphState
DECODE_GRAPH_STATE_UNAVAILABLE: DecodeGraphState
SUPPORT_LEVEL_UNSPECIFIED: SupportLevel
SUPPORT_LEVEL_SUPPORTED: SupportLevel
SUPPORT_LEVEL_SLOW: SupportLevel
SUPPORT_LEVEL_UNSUPPORTED: SupportLevel

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("model_id", "model_fingerprint", "architecture", "dtype", "parameter_count", "hidden_size", "layer_count", "context_length", "embedding_row_count", "vocabulary", "vocabulary_followed", "tied_embeddings", "eos_token_ids", "bos_token_id", "pad_token_id", "default_generation_config", "device_map", "execution_path", "boot_id", "server_version", "determinism", "decode_graph_state", "decode_graph_reason", "vocabulary_following", "assistant_model_id")
    class DeviceMapEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FOLLOWED_FIELD_NUMBER: _ClassVar[int]
    TIED_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    BOS_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_GENERATION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MAP_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PATH_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    DECODE_GRAPH_STATE_FIELD_NUMBER: _ClassVar[int]
    DECODE_GRAPH_REASON_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    model_fingerprint: str
    architecture: str
    dtype: str
    parameter_count: int
    hidden_size: int
    layer_count: int
    context_length: int
    embedding_row_count: int
    vocabulary: _vocabulary_pb2.VocabularyRef
    vocabulary_followed: bool
    tied_embeddings: bool
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    bos_token_id: int
    pad_token_id: int
    default_generation_config: _generation_pb2.GenerationConfig
    device_map: _containers.ScalarMap[str, str]
    execution_path: str
    boot_id: str
    server_version: str
    determinism: _generation_pb2.Determinism
    decode_graph_state: DecodeGraphState
    decode_graph_reason: str
    vocabulary_following: VocabularyFollowing
    assistant_model_id: str
    def __init__(self, model_id: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., architecture: _Optional[str] = ..., dtype: _Optional[str] = ..., parameter_count: _Optional[int] = ..., hidden_size: _Optional[int] = ..., layer_count: _Optional[int] = ..., context_length: _Optional[int] = ..., embedding_row_count: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., vocabulary_followed: _Optional[bool] = ..., tied_embeddings: _Optional[bool] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., bos_token_id: _Optional[int] = ..., pad_token_id: _Optional[int] = ..., default_generation_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., device_map: _Optional[_Mapping[str, str]] = ..., execution_path: _Optional[str] = ..., boot_id: _Optional[str] = ..., server_version: _Optional[str] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ..., decode_graph_state: _Optional[_Union[DecodeGraphState, str]] = ..., decode_graph_reason: _Optional[str] = ..., vocabulary_following: _Optional[_Union[VocabularyFollowing, _Mapping]] = ..., assistant_model_id: _Optional[str] = ...) -> None: ...

class VocabularyFollowing(_message.Message):
    __slots__ = ("state", "reason", "lag_revision_count", "silence")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LAG_REVISION_COUNT_FIELD_NUMBER: _ClassVar[int]
    SILENCE_FIELD_NUMBER: _ClassVar[int]
    state: VocabularyFollowState
    reason: str
    lag_revision_count: int
    silence: _duration_pb2.Duration
    def __init__(self, state: _Optional[_Union[VocabularyFollowState, str]] = ..., reason: _Optional[str] = ..., lag_revision_count: _Optional[int] = ..., silence: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelLimits(_message.Message):
    __slots__ = ("max_sequences_per_call", "max_running_sequences", "max_waiting_sequences", "max_sessions", "max_kv_tokens", "max_selected_tokens", "max_request_bytes", "max_response_bytes", "max_chunk_bytes")
    MAX_SEQUENCES_PER_CALL_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    MAX_WAITING_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_KV_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_SELECTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_sequences_per_call: int
    max_running_sequences: int
    max_waiting_sequences: int
    max_sessions: int
    max_kv_tokens: int
    max_selected_tokens: int
    max_request_bytes: int
    max_response_bytes: int
    max_chunk_bytes: int
    def __init__(self, max_sequences_per_call: _Optional[int] = ..., max_running_sequences: _Optional[int] = ..., max_waiting_sequences: _Optional[int] = ..., max_sessions: _Optional[int] = ..., max_kv_tokens: _Optional[int] = ..., max_selected_tokens: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., max_response_bytes: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ...) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("methods", "generation_fields", "score_dtypes", "limits", "determinism_level", "vocabulary")
    class MethodsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SupportLevel
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SupportLevel, str]] = ...) -> None: ...
    class GenerationFieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SupportLevel
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SupportLevel, str]] = ...) -> None: ...
    METHODS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELDS_FIELD_NUMBER: _ClassVar[int]
    SCORE_DTYPES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_LEVEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    methods: _containers.ScalarMap[str, SupportLevel]
    generation_fields: _containers.ScalarMap[str, SupportLevel]
    score_dtypes: _containers.RepeatedScalarFieldContainer[_tensor_pb2.DataType]
    limits: ModelLimits
    determinism_level: _generation_pb2.DeterminismLevel
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, methods: _Optional[_Mapping[str, SupportLevel]] = ..., generation_fields: _Optional[_Mapping[str, SupportLevel]] = ..., score_dtypes: _Optional[_Iterable[_Union[_tensor_pb2.DataType, str]]] = ..., limits: _Optional[_Union[ModelLimits, _Mapping]] = ..., determinism_level: _Optional[_Union[_generation_pb2.DeterminismLevel, str]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ListLogitsProcessorsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LogitsProcessorInfo(_message.Message):
    __slots__ = ("name", "description", "arguments_schema_json", "warper", "repeatable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    WARPER_FIELD_NUMBER: _ClassVar[int]
    REPEATABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    arguments_schema_json: str
    warper: bool
    repeatable: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., arguments_schema_json: _Optional[str] = ..., warper: _Optional[bool] = ..., repeatable: _Optional[bool] = ...) -> None: ...

class ListLogitsProcessorsResponse(_message.Message):
    __slots__ = ("processors", "vocabulary")
    PROCESSORS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    processors: _containers.RepeatedCompositeFieldContainer[LogitsProcessorInfo]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, processors: _Optional[_Iterable[_Union[LogitsProcessorInfo, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class GetLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLoadResponse(_message.Message):
    __slots__ = ("running_sequence_count", "waiting_sequence_count", "session_count", "kv_used_token_count", "kv_total_token_count", "tokens_per_second", "vocabulary")
    RUNNING_SEQUENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_SEQUENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    KV_USED_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    KV_TOTAL_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    running_sequence_count: int
    waiting_sequence_count: int
    session_count: int
    kv_used_token_count: int
    kv_total_token_count: int
    tokens_per_second: float
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, running_sequence_count: _Optional[int] = ..., waiting_sequence_count: _Optional[int] = ..., session_count: _Optional[int] = ..., kv_used_token_count: _Optional[int] = ..., kv_total_token_count: _Optional[int] = ..., tokens_per_second: _Optional[float] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ValidateRequestRequest(_message.Message):
    __slots__ = ("generate_request",)
    GENERATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    generate_request: _model_service_pb2.GenerateRequest
    def __init__(self, generate_request: _Optional[_Union[_model_service_pb2.GenerateRequest, _Mapping]] = ...) -> None: ...

class ValidateRequestResponse(_message.Message):
    __slots__ = ("effective_config", "applied_processors", "kv_token_count", "max_response_bytes", "vocabulary")
    EFFECTIVE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    APPLIED_PROCESSORS_FIELD_NUMBER: _ClassVar[int]
    KV_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    effective_config: _generation_pb2.GenerationConfig
    applied_processors: _containers.RepeatedScalarFieldContainer[str]
    kv_token_count: int
    max_response_bytes: int
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, effective_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., applied_processors: _Optional[_Iterable[str]] = ..., kv_token_count: _Optional[int] = ..., max_response_bytes: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...
