import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lockstep.v1 import error_reason_pb2 as _error_reason_pb2
from lockstep.v1 import generation_pb2 as _generation_pb2
from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import model_service_pb2 as _model_service_pb2
from lockstep.v1 import scores_pb2 as _scores_pb2
from lockstep.v1 import tensor_pb2 as _tensor_pb2
from lockstep.v1 import tokens_pb2 as _tokens_pb2
from lockstep.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenSessionRequest(_message.Message):
    __slots__ = ("prompt", "vocabulary", "max_length", "ttl", "scores", "generation_config", "cache_salt", "sampling", "origins")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    prompt: _tokens_pb2.PromptBatch
    vocabulary: _vocabulary_pb2.VocabularyRef
    max_length: int
    ttl: _duration_pb2.Duration
    scores: _scores_pb2.ScoreSelection
    generation_config: _generation_pb2.GenerationConfig
    cache_salt: str
    sampling: StepSampling
    origins: _containers.RepeatedCompositeFieldContainer[RowOrigin]
    def __init__(self, prompt: _Optional[_Union[_tokens_pb2.PromptBatch, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., max_length: _Optional[int] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., scores: _Optional[_Union[_scores_pb2.ScoreSelection, _Mapping]] = ..., generation_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., cache_salt: _Optional[str] = ..., sampling: _Optional[_Union[StepSampling, _Mapping]] = ..., origins: _Optional[_Iterable[_Union[RowOrigin, _Mapping]]] = ...) -> None: ...

class RowOrigin(_message.Message):
    __slots__ = ("prompt_token_count", "seed", "pending_token_count")
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PENDING_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    prompt_token_count: int
    seed: int
    pending_token_count: int
    def __init__(self, prompt_token_count: _Optional[int] = ..., seed: _Optional[int] = ..., pending_token_count: _Optional[int] = ...) -> None: ...

class SessionRow(_message.Message):
    __slots__ = ("position", "tokens", "seed", "sampled_token_id", "finish_reason", "prompt_token_count", "pending_token_count")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    PENDING_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    position: int
    tokens: _tokens_pb2.TokenSequence
    seed: int
    sampled_token_id: int
    finish_reason: _generation_pb2.FinishReason
    prompt_token_count: int
    pending_token_count: int
    def __init__(self, position: _Optional[int] = ..., tokens: _Optional[_Union[_tokens_pb2.TokenSequence, _Mapping]] = ..., seed: _Optional[int] = ..., sampled_token_id: _Optional[int] = ..., finish_reason: _Optional[_Union[_generation_pb2.FinishReason, str]] = ..., prompt_token_count: _Optional[int] = ..., pending_token_count: _Optional[int] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session_id", "rows", "scores", "vocabulary", "effective_config", "expire_time", "kv_bytes", "usage", "determinism", "max_length")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    rows: _containers.RepeatedCompositeFieldContainer[SessionRow]
    scores: _containers.RepeatedCompositeFieldContainer[_model_service_pb2.PositionScoresList]
    vocabulary: _vocabulary_pb2.VocabularyRef
    effective_config: _generation_pb2.GenerationConfig
    expire_time: _timestamp_pb2.Timestamp
    kv_bytes: int
    usage: _generation_pb2.Usage
    determinism: _generation_pb2.Determinism
    max_length: int
    def __init__(self, session_id: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[SessionRow, _Mapping]]] = ..., scores: _Optional[_Iterable[_Union[_model_service_pb2.PositionScoresList, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., effective_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kv_bytes: _Optional[int] = ..., usage: _Optional[_Union[_generation_pb2.Usage, _Mapping]] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ..., max_length: _Optional[int] = ...) -> None: ...

class RowStep(_message.Message):
    __slots__ = ("ids", "expected_position")
    IDS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_POSITION_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    expected_position: int
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., expected_position: _Optional[int] = ...) -> None: ...

class StepSampling(_message.Message):
    __slots__ = ("append",)
    APPEND_FIELD_NUMBER: _ClassVar[int]
    append: bool
    def __init__(self, append: _Optional[bool] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("session_id", "rows", "scores", "sampling", "step_id", "look_ahead")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    LOOK_AHEAD_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    rows: _containers.RepeatedCompositeFieldContainer[RowStep]
    scores: _scores_pb2.ScoreSelection
    sampling: StepSampling
    step_id: str
    look_ahead: bool
    def __init__(self, session_id: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[RowStep, _Mapping]]] = ..., scores: _Optional[_Union[_scores_pb2.ScoreSelection, _Mapping]] = ..., sampling: _Optional[_Union[StepSampling, _Mapping]] = ..., step_id: _Optional[str] = ..., look_ahead: _Optional[bool] = ...) -> None: ...

class StepRowResult(_message.Message):
    __slots__ = ("position", "scores", "sampled_token_id", "finish_reason", "error", "seed")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    position: int
    scores: _containers.RepeatedCompositeFieldContainer[_scores_pb2.PositionScores]
    sampled_token_id: int
    finish_reason: _generation_pb2.FinishReason
    error: _error_reason_pb2.ItemError
    seed: int
    def __init__(self, position: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[_scores_pb2.PositionScores, _Mapping]]] = ..., sampled_token_id: _Optional[int] = ..., finish_reason: _Optional[_Union[_generation_pb2.FinishReason, str]] = ..., error: _Optional[_Union[_error_reason_pb2.ItemError, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("rows", "replayed", "recomputed", "vocabulary", "expire_time", "determinism", "drain_time_left")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    DRAIN_TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[StepRowResult]
    replayed: bool
    recomputed: bool
    vocabulary: _vocabulary_pb2.VocabularyRef
    expire_time: _timestamp_pb2.Timestamp
    determinism: _generation_pb2.Determinism
    drain_time_left: _duration_pb2.Duration
    def __init__(self, rows: _Optional[_Iterable[_Union[StepRowResult, _Mapping]]] = ..., replayed: _Optional[bool] = ..., recomputed: _Optional[bool] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ..., drain_time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StepStreamRequest(_message.Message):
    __slots__ = ("step", "accept_chunks", "accept_packed_chunks")
    STEP_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_PACKED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    step: StepRequest
    accept_chunks: bool
    accept_packed_chunks: bool
    def __init__(self, step: _Optional[_Union[StepRequest, _Mapping]] = ..., accept_chunks: _Optional[bool] = ..., accept_packed_chunks: _Optional[bool] = ...) -> None: ...

class StepStreamResponse(_message.Message):
    __slots__ = ("step", "chunk", "chunks")
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    step: StepResponse
    chunk: _tensor_pb2.TensorChunk
    chunks: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorChunk]
    def __init__(self, step: _Optional[_Union[StepResponse, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.TensorChunk, _Mapping]] = ..., chunks: _Optional[_Iterable[_Union[_tensor_pb2.TensorChunk, _Mapping]]] = ...) -> None: ...

class TruncateRequest(_message.Message):
    __slots__ = ("session_id", "positions")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session_id: _Optional[str] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class TruncateResponse(_message.Message):
    __slots__ = ("rows", "vocabulary")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[SessionRow]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, rows: _Optional[_Iterable[_Union[SessionRow, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ForkRequest(_message.Message):
    __slots__ = ("session_id", "count", "row_indices")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_INDICES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    count: int
    row_indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session_id: _Optional[str] = ..., count: _Optional[int] = ..., row_indices: _Optional[_Iterable[int]] = ...) -> None: ...

class ForkResponse(_message.Message):
    __slots__ = ("session_ids", "shared_kv_bytes", "copied_kv_bytes", "vocabulary")
    SESSION_IDS_FIELD_NUMBER: _ClassVar[int]
    SHARED_KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPIED_KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    session_ids: _containers.RepeatedScalarFieldContainer[str]
    shared_kv_bytes: int
    copied_kv_bytes: int
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, session_ids: _Optional[_Iterable[str]] = ..., shared_kv_bytes: _Optional[int] = ..., copied_kv_bytes: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class SelectRowsRequest(_message.Message):
    __slots__ = ("session_id", "row_indices")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_INDICES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    row_indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session_id: _Optional[str] = ..., row_indices: _Optional[_Iterable[int]] = ...) -> None: ...

class SelectRowsResponse(_message.Message):
    __slots__ = ("rows", "vocabulary")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[SessionRow]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, rows: _Optional[_Iterable[_Union[SessionRow, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("rows", "vocabulary", "kv_bytes", "create_time", "expire_time", "effective_config", "determinism", "max_length")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[SessionRow]
    vocabulary: _vocabulary_pb2.VocabularyRef
    kv_bytes: int
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    effective_config: _generation_pb2.GenerationConfig
    determinism: _generation_pb2.Determinism
    max_length: int
    def __init__(self, rows: _Optional[_Iterable[_Union[SessionRow, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., kv_bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., effective_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ..., max_length: _Optional[int] = ...) -> None: ...

class RebindSessionRequest(_message.Message):
    __slots__ = ("session_id", "vocabulary")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, session_id: _Optional[str] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class RebindSessionResponse(_message.Message):
    __slots__ = ("vocabulary", "previous_vocabulary", "rows", "expire_time")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    previous_vocabulary: _vocabulary_pb2.VocabularyRef
    rows: _containers.RepeatedCompositeFieldContainer[SessionRow]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., previous_vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[SessionRow, _Mapping]]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class SessionSummary(_message.Message):
    __slots__ = ("session_id", "positions", "kv_bytes", "expire_time", "vocabulary")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    positions: _containers.RepeatedScalarFieldContainer[int]
    kv_bytes: int
    expire_time: _timestamp_pb2.Timestamp
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, session_id: _Optional[str] = ..., positions: _Optional[_Iterable[int]] = ..., kv_bytes: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token", "vocabulary")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionSummary]
    next_page_token: str
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class TouchSessionRequest(_message.Message):
    __slots__ = ("session_id", "ttl")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    ttl: _duration_pb2.Duration
    def __init__(self, session_id: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TouchSessionResponse(_message.Message):
    __slots__ = ("expire_time", "vocabulary")
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    expire_time: _timestamp_pb2.Timestamp
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ("token_count", "vocabulary")
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    token_count: int
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, token_count: _Optional[int] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...
