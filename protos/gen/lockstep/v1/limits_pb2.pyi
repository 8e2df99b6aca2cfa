from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor
LIMITS_FIELD_NUMBER: _ClassVar[int]
limits: _descriptor.FieldDescriptor

class FieldLimits(_message.Message):
    __slots__ = ("max_items", "max_bytes", "minus_infinity", "wrapped")
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MINUS_INFINITY_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_FIELD_NUMBER: _ClassVar[int]
    max_items: int
    max_bytes: int
    minus_infinity: bool
    wrapped: bool
    def __init__(self, max_items: _Optional[int] = ..., max_bytes: _Optional[int] = ..., minus_infinity: _Optional[bool] = ..., wrapped: _Optional[bool] = ...) -> None: ...
