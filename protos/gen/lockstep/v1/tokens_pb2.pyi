from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PaddingSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PADDING_SIDE_UNSPECIFIED: _ClassVar[PaddingSide]
    PADDING_SIDE_LEFT: _ClassVar[PaddingSide]
    PADDING_SIDE_RIGHT: _ClassVar[PaddingSide]
PADDING_SIDE_UNSPECIFIED: PaddingSide
PADDING_SIDE_LEFT: PaddingSide
PADDING_SIDE_RIGHT: PaddingSide

class TokenSequence(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class TokenBatch(_message.Message):
    __slots__ = ("sequences",)
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[TokenSequence]
    def __init__(self, sequences: _Optional[_Iterable[_Union[TokenSequence, _Mapping]]] = ...) -> None: ...

class PaddedBatch(_message.Message):
    __slots__ = ("input_ids", "attention_mask", "position_ids", "padding_side", "pad_token_id", "lengths")
    INPUT_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MASK_FIELD_NUMBER: _ClassVar[int]
    POSITION_IDS_FIELD_NUMBER: _ClassVar[int]
    PADDING_SIDE_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    input_ids: _tensor_pb2.Tensor
    attention_mask: _tensor_pb2.Tensor
    position_ids: _tensor_pb2.Tensor
    padding_side: PaddingSide
    pad_token_id: int
    lengths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, input_ids: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., attention_mask: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., position_ids: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., padding_side: _Optional[_Union[PaddingSide, str]] = ..., pad_token_id: _Optional[int] = ..., lengths: _Optional[_Iterable[int]] = ...) -> None: ...

class PromptBatch(_message.Message):
    __slots__ = ("token_batch", "padded_batch")
    TOKEN_BATCH_FIELD_NUMBER: _ClassVar[int]
    PADDED_BATCH_FIELD_NUMBER: _ClassVar[int]
    token_batch: TokenBatch
    padded_batch: PaddedBatch
    def __init__(self, token_batch: _Optional[_Union[TokenBatch, _Mapping]] = ..., padded_batch: _Optional[_Union[PaddedBatch, _Mapping]] = ...) -> None: ...
