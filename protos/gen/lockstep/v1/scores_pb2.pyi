from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScorePositions(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_POSITIONS_UNSPECIFIED: _ClassVar[ScorePositions]
    SCORE_POSITIONS_LAST: _ClassVar[ScorePositions]
    SCORE_POSITIONS_NEW: _ClassVar[ScorePositions]
    SCORE_POSITIONS_ALL: _ClassVar[ScorePositions]
    SCORE_POSITIONS_LIST: _ClassVar[ScorePositions]
SCORE_POSITIONS_UNSPECIFIED: ScorePositions
SCORE_POSITIONS_LAST: ScorePositions
SCORE_POSITIONS_NEW: ScorePositions
SCORE_POSITIONS_ALL: ScorePositions
SCORE_POSITIONS_LIST: ScorePositions

class ScoreSelection(_message.Message):
    __slots__ = ("logits", "scores", "full", "top_k", "token_ids", "dtype", "positions", "position_list", "rank", "entropy", "logsumexp", "processor_trace", "top_k_of_both")
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    POSITION_LIST_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    LOGSUMEXP_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_TRACE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_OF_BOTH_FIELD_NUMBER: _ClassVar[int]
    logits: bool
    scores: bool
    full: bool
    top_k: int
    token_ids: TokenIdList
    dtype: _tensor_pb2.DataType
    positions: ScorePositions
    position_list: _containers.RepeatedScalarFieldContainer[int]
    rank: bool
    entropy: bool
    logsumexp: bool
    processor_trace: bool
    top_k_of_both: bool
    def __init__(self, logits: _Optional[bool] = ..., scores: _Optional[bool] = ..., full: _Optional[bool] = ..., top_k: _Optional[int] = ..., token_ids: _Optional[_Union[TokenIdList, _Mapping]] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., positions: _Optional[_Union[ScorePositions, str]] = ..., position_list: _Optional[_Iterable[int]] = ..., rank: _Optional[bool] = ..., entropy: _Optional[bool] = ..., logsumexp: _Optional[bool] = ..., processor_trace: _Optional[bool] = ..., top_k_of_both: _Optional[bool] = ...) -> None: ...

class TokenIdList(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class TokenScore(_message.Message):
    __slots__ = ("token_id", "logit", "score")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    logit: float
    score: float
    def __init__(self, token_id: _Optional[int] = ..., logit: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...

class ScoreRow(_message.Message):
    __slots__ = ("tensor", "tensor_id", "dtype")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    TENSOR_ID_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.Tensor
    tensor_id: int
    dtype: _tensor_pb2.DataType
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., tensor_id: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ...) -> None: ...

class PositionScores(_message.Message):
    __slots__ = ("position", "token_id", "logits", "scores", "tokens", "logits_logsumexp", "scores_logsumexp", "entropy", "rank", "processor_trace", "logits_logprob", "scores_logprob")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGITS_LOGSUMEXP_FIELD_NUMBER: _ClassVar[int]
    SCORES_LOGSUMEXP_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_TRACE_FIELD_NUMBER: _ClassVar[int]
    LOGITS_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    SCORES_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    position: int
    token_id: int
    logits: ScoreRow
    scores: ScoreRow
    tokens: _containers.RepeatedCompositeFieldContainer[TokenScore]
    logits_logsumexp: float
    scores_logsumexp: float
    entropy: float
    rank: int
    processor_trace: _containers.RepeatedCompositeFieldContainer[ProcessorTrace]
    logits_logprob: float
    scores_logprob: float
    def __init__(self, position: _Optional[int] = ..., token_id: _Optional[int] = ..., logits: _Optional[_Union[ScoreRow, _Mapping]] = ..., scores: _Optional[_Union[ScoreRow, _Mapping]] = ..., tokens: _Optional[_Iterable[_Union[TokenScore, _Mapping]]] = ..., logits_logsumexp: _Optional[float] = ..., scores_logsumexp: _Optional[float] = ..., entropy: _Optional[float] = ..., rank: _Optional[int] = ..., processor_trace: _Optional[_Iterable[_Union[ProcessorTrace, _Mapping]]] = ..., logits_logprob: _Optional[float] = ..., scores_logprob: _Optional[float] = ...) -> None: ...

class ProcessorTrace(_message.Message):
    __slots__ = ("processor", "score", "logsumexp", "token_scores")
    PROCESSOR_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LOGSUMEXP_FIELD_NUMBER: _ClassVar[int]
    TOKEN_SCORES_FIELD_NUMBER: _ClassVar[int]
    processor: str
    score: float
    logsumexp: float
    token_scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, processor: _Optional[str] = ..., score: _Optional[float] = ..., logsumexp: _Optional[float] = ..., token_scores: _Optional[_Iterable[float]] = ...) -> None: ...
