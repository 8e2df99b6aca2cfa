import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from lockstep.v1 import generation_pb2 as _generation_pb2
from lockstep.v1 import limits_pb2 as _limits_pb2
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

class GenerateRequest(_message.Message):
    __slots__ = ("prompt", "generation_config", "scores", "prompt_scores", "vocabulary", "priority", "cache_salt", "use_prefix_cache", "keep_session", "seeds", "session_id")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_SCORES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    USE_PREFIX_CACHE_FIELD_NUMBER: _ClassVar[int]
    KEEP_SESSION_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    prompt: _tokens_pb2.PromptBatch
    generation_config: _generation_pb2.GenerationConfig
    scores: _scores_pb2.ScoreSelection
    prompt_scores: _scores_pb2.ScoreSelection
    vocabulary: _vocabulary_pb2.VocabularyRef
    priority: int
    cache_salt: str
    use_prefix_cache: bool
    keep_session: SessionRetention
    seeds: _containers.RepeatedScalarFieldContainer[int]
    session_id: str
    def __init__(self, prompt: _Optional[_Union[_tokens_pb2.PromptBatch, _Mapping]] = ..., generation_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., scores: _Optional[_Union[_scores_pb2.ScoreSelection, _Mapping]] = ..., prompt_scores: _Optional[_Union[_scores_pb2.ScoreSelection, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., priority: _Optional[int] = ..., cache_salt: _Optional[str] = ..., use_prefix_cache: _Optional[bool] = ..., keep_session: _Optional[_Union[SessionRetention, _Mapping]] = ..., seeds: _Optional[_Iterable[int]] = ..., session_id: _Optional[str] = ...) -> None: ...

class SessionRetention(_message.Message):
    __slots__ = ("ttl", "max_length")
    TTL_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    ttl: _duration_pb2.Duration
    max_length: int
    def __init__(self, ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_length: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("sequences", "effective_config", "applied_processors", "vocabulary", "usage", "timing", "determinism", "session_id")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    APPLIED_PROCESSORS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[_generation_pb2.GeneratedSequence]
    effective_config: _generation_pb2.GenerationConfig
    applied_processors: _containers.RepeatedScalarFieldContainer[str]
    vocabulary: _vocabulary_pb2.VocabularyRef
    usage: _generation_pb2.Usage
    timing: _generation_pb2.Timing
    determinism: _generation_pb2.Determinism
    session_id: str
    def __init__(self, sequences: _Optional[_Iterable[_Union[_generation_pb2.GeneratedSequence, _Mapping]]] = ..., effective_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., applied_processors: _Optional[_Iterable[str]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., usage: _Optional[_Union[_generation_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_generation_pb2.Timing, _Mapping]] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ..., session_id: _Optional[str] = ...) -> None: ...

class GenerateStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: GenerateRequest
    def __init__(self, request: _Optional[_Union[GenerateRequest, _Mapping]] = ...) -> None: ...

class GenerateStreamResponse(_message.Message):
    __slots__ = ("started", "deltas", "chunk", "finished", "completed")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    started: GenerationStarted
    deltas: TokenDeltas
    chunk: _tensor_pb2.TensorChunk
    finished: SequenceFinished
    completed: GenerationCompleted
    def __init__(self, started: _Optional[_Union[GenerationStarted, _Mapping]] = ..., deltas: _Optional[_Union[TokenDeltas, _Mapping]] = ..., chunk: _Optional[_Union[_tensor_pb2.TensorChunk, _Mapping]] = ..., finished: _Optional[_Union[SequenceFinished, _Mapping]] = ..., completed: _Optional[_Union[GenerationCompleted, _Mapping]] = ...) -> None: ...

class GenerationStarted(_message.Message):
    __slots__ = ("effective_config", "applied_processors", "vocabulary", "seeds", "determinism")
    EFFECTIVE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    APPLIED_PROCESSORS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    effective_config: _generation_pb2.GenerationConfig
    applied_processors: _containers.RepeatedScalarFieldContainer[str]
    vocabulary: _vocabulary_pb2.VocabularyRef
    seeds: _containers.RepeatedScalarFieldContainer[int]
    determinism: _generation_pb2.Determinism
    def __init__(self, effective_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ..., applied_processors: _Optional[_Iterable[str]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., seeds: _Optional[_Iterable[int]] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ...) -> None: ...

class TokenDeltas(_message.Message):
    __slots__ = ("deltas",)
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    deltas: _containers.RepeatedCompositeFieldContainer[TokenDelta]
    def __init__(self, deltas: _Optional[_Iterable[_Union[TokenDelta, _Mapping]]] = ...) -> None: ...

class TokenDelta(_message.Message):
    __slots__ = ("prompt_index", "sequence_index", "token_ids", "scores", "prompt_scores")
    PROMPT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_SCORES_FIELD_NUMBER: _ClassVar[int]
    prompt_index: int
    sequence_index: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedCompositeFieldContainer[_scores_pb2.PositionScores]
    prompt_scores: _containers.RepeatedCompositeFieldContainer[_scores_pb2.PositionScores]
    def __init__(self, prompt_index: _Optional[int] = ..., sequence_index: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[_Union[_scores_pb2.PositionScores, _Mapping]]] = ..., prompt_scores: _Optional[_Iterable[_Union[_scores_pb2.PositionScores, _Mapping]]] = ...) -> None: ...

class SequenceFinished(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: _generation_pb2.GeneratedSequence
    def __init__(self, sequence: _Optional[_Union[_generation_pb2.GeneratedSequence, _Mapping]] = ...) -> None: ...

class GenerationCompleted(_message.Message):
    __slots__ = ("usage", "timing", "session_id")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    usage: _generation_pb2.Usage
    timing: _generation_pb2.Timing
    session_id: str
    def __init__(self, usage: _Optional[_Union[_generation_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_generation_pb2.Timing, _Mapping]] = ..., session_id: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("prompt", "continuations", "scores", "vocabulary", "generation_config")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONTINUATIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    prompt: _tokens_pb2.PromptBatch
    continuations: _tokens_pb2.TokenBatch
    scores: _scores_pb2.ScoreSelection
    vocabulary: _vocabulary_pb2.VocabularyRef
    generation_config: _generation_pb2.GenerationConfig
    def __init__(self, prompt: _Optional[_Union[_tokens_pb2.PromptBatch, _Mapping]] = ..., continuations: _Optional[_Union[_tokens_pb2.TokenBatch, _Mapping]] = ..., scores: _Optional[_Union[_scores_pb2.ScoreSelection, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., generation_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ...) -> None: ...

class ScoredSequence(_message.Message):
    __slots__ = ("scores", "logits_logprob", "greedy")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    GREEDY_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[_scores_pb2.PositionScores]
    logits_logprob: float
    greedy: bool
    def __init__(self, scores: _Optional[_Iterable[_Union[_scores_pb2.PositionScores, _Mapping]]] = ..., logits_logprob: _Optional[float] = ..., greedy: _Optional[bool] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("sequences", "vocabulary", "usage", "determinism")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[ScoredSequence]
    vocabulary: _vocabulary_pb2.VocabularyRef
    usage: _generation_pb2.Usage
    determinism: _generation_pb2.Determinism
    def __init__(self, sequences: _Optional[_Iterable[_Union[ScoredSequence, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., usage: _Optional[_Union[_generation_pb2.Usage, _Mapping]] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ...) -> None: ...

class ComputeLogitsRequest(_message.Message):
    __slots__ = ("prompt", "scores", "vocabulary", "generation_config")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    prompt: _tokens_pb2.PromptBatch
    scores: _scores_pb2.ScoreSelection
    vocabulary: _vocabulary_pb2.VocabularyRef
    generation_config: _generation_pb2.GenerationConfig
    def __init__(self, prompt: _Optional[_Union[_tokens_pb2.PromptBatch, _Mapping]] = ..., scores: _Optional[_Union[_scores_pb2.ScoreSelection, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., generation_config: _Optional[_Union[_generation_pb2.GenerationConfig, _Mapping]] = ...) -> None: ...

class ComputeLogitsResponse(_message.Message):
    __slots__ = ("rows", "vocabulary", "usage", "determinism")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    DETERMINISM_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[PositionScoresList]
    vocabulary: _vocabulary_pb2.VocabularyRef
    usage: _generation_pb2.Usage
    determinism: _generation_pb2.Determinism
    def __init__(self, rows: _Optional[_Iterable[_Union[PositionScoresList, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., usage: _Optional[_Union[_generation_pb2.Usage, _Mapping]] = ..., determinism: _Optional[_Union[_generation_pb2.Determinism, _Mapping]] = ...) -> None: ...

class PositionScoresList(_message.Message):
    __slots__ = ("scores",)
    SCORES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[_scores_pb2.PositionScores]
    def __init__(self, scores: _Optional[_Iterable[_Union[_scores_pb2.PositionScores, _Mapping]]] = ...) -> None: ...
