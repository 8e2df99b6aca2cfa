import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from lockstep.v1 import error_reason_pb2 as _error_reason_pb2
from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import tokens_pb2 as _tokens_pb2
from lockstep.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PaddingStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PADDING_STRATEGY_UNSPECIFIED: _ClassVar[PaddingStrategy]
    PADDING_STRATEGY_NONE: _ClassVar[PaddingStrategy]
    PADDING_STRATEGY_LONGEST: _ClassVar[PaddingStrategy]
    PADDING_STRATEGY_MAX_LENGTH: _ClassVar[PaddingStrategy]

class OffsetUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OFFSET_UNIT_UNSPECIFIED: _ClassVar[OffsetUnit]
    OFFSET_UNIT_BYTES: _ClassVar[OffsetUnit]
    OFFSET_UNIT_CODE_POINTS: _ClassVar[OffsetUnit]
    OFFSET_UNIT_UTF16: _ClassVar[OffsetUnit]
PADDING_STRATEGY_UNSPECIFIED: PaddingStrategy
PADDING_STRATEGY_NONE: PaddingStrategy
PADDING_STRATEGY_LONGEST: PaddingStrategy
PADDING_STRATEGY_MAX_LENGTH: PaddingStrategy
OFFSET_UNIT_UNSPECIFIED: OffsetUnit
OFFSET_UNIT_BYTES: OffsetUnit
OFFSET_UNIT_CODE_POINTS: OffsetUnit
OFFSET_UNIT_UTF16: OffsetUnit

class PaddingOptions(_message.Message):
    __slots__ = ("strategy", "side", "pad_to_multiple_of", "max_length", "pad_token_id")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PAD_TO_MULTIPLE_OF_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    strategy: PaddingStrategy
    side: _tokens_pb2.PaddingSide
    pad_to_multiple_of: int
    max_length: int
    pad_token_id: int
    def __init__(self, strategy: _Optional[_Union[PaddingStrategy, str]] = ..., side: _Optional[_Union[_tokens_pb2.PaddingSide, str]] = ..., pad_to_multiple_of: _Optional[int] = ..., max_length: _Optional[int] = ..., pad_token_id: _Optional[int] = ...) -> None: ...

class TruncationOptions(_message.Message):
    __slots__ = ("max_length", "side")
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    max_length: int
    side: _tokens_pb2.PaddingSide
    def __init__(self, max_length: _Optional[int] = ..., side: _Optional[_Union[_tokens_pb2.PaddingSide, str]] = ...) -> None: ...

class TextItem(_message.Message):
    __slots__ = ("text", "text_pair")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXT_PAIR_FIELD_NUMBER: _ClassVar[int]
    text: str
    text_pair: str
    def __init__(self, text: _Optional[str] = ..., text_pair: _Optional[str] = ...) -> None: ...

class EncodeOptions(_message.Message):
    __slots__ = ("add_special_tokens", "parse_special_tokens", "truncation", "padding", "offset_unit", "return_special_tokens_mask", "return_word_ids", "return_tokens", "return_token_bytes", "return_token_type_ids")
    ADD_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PARSE_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    OFFSET_UNIT_FIELD_NUMBER: _ClassVar[int]
    RETURN_SPECIAL_TOKENS_MASK_FIELD_NUMBER: _ClassVar[int]
    RETURN_WORD_IDS_FIELD_NUMBER: _ClassVar[int]
    RETURN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RETURN_TOKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETURN_TOKEN_TYPE_IDS_FIELD_NUMBER: _ClassVar[int]
    add_special_tokens: bool
    parse_special_tokens: bool
    truncation: TruncationOptions
    padding: PaddingOptions
    offset_unit: OffsetUnit
    return_special_tokens_mask: bool
    return_word_ids: bool
    return_tokens: bool
    return_token_bytes: bool
    return_token_type_ids: bool
    def __init__(self, add_special_tokens: _Optional[bool] = ..., parse_special_tokens: _Optional[bool] = ..., truncation: _Optional[_Union[TruncationOptions, _Mapping]] = ..., padding: _Optional[_Union[PaddingOptions, _Mapping]] = ..., offset_unit: _Optional[_Union[OffsetUnit, str]] = ..., return_special_tokens_mask: _Optional[bool] = ..., return_word_ids: _Optional[bool] = ..., return_tokens: _Optional[bool] = ..., return_token_bytes: _Optional[bool] = ..., return_token_type_ids: _Optional[bool] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("items", "options", "min_revision")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TextItem]
    options: EncodeOptions
    min_revision: int
    def __init__(self, items: _Optional[_Iterable[_Union[TextItem, _Mapping]]] = ..., options: _Optional[_Union[EncodeOptions, _Mapping]] = ..., min_revision: _Optional[int] = ...) -> None: ...

class EncodingDetails(_message.Message):
    __slots__ = ("truncated_token_count", "offset_starts", "offset_ends", "special_tokens_mask", "word_ids", "tokens", "token_bytes", "token_type_ids")
    TRUNCATED_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_STARTS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_ENDS_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_MASK_FIELD_NUMBER: _ClassVar[int]
    WORD_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_TYPE_IDS_FIELD_NUMBER: _ClassVar[int]
    truncated_token_count: int
    offset_starts: _containers.RepeatedScalarFieldContainer[int]
    offset_ends: _containers.RepeatedScalarFieldContainer[int]
    special_tokens_mask: _containers.RepeatedScalarFieldContainer[int]
    word_ids: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    token_bytes: _containers.RepeatedScalarFieldContainer[bytes]
    token_type_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, truncated_token_count: _Optional[int] = ..., offset_starts: _Optional[_Iterable[int]] = ..., offset_ends: _Optional[_Iterable[int]] = ..., special_tokens_mask: _Optional[_Iterable[int]] = ..., word_ids: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[str]] = ..., token_bytes: _Optional[_Iterable[bytes]] = ..., token_type_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("token_batch", "padded_batch", "details", "vocabulary")
    TOKEN_BATCH_FIELD_NUMBER: _ClassVar[int]
    PADDED_BATCH_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    token_batch: _tokens_pb2.TokenBatch
    padded_batch: _tokens_pb2.PaddedBatch
    details: _containers.RepeatedCompositeFieldContainer[EncodingDetails]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, token_batch: _Optional[_Union[_tokens_pb2.TokenBatch, _Mapping]] = ..., padded_batch: _Optional[_Union[_tokens_pb2.PaddedBatch, _Mapping]] = ..., details: _Optional[_Iterable[_Union[EncodingDetails, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class EncodeStreamRequest(_message.Message):
    __slots__ = ("item_id", "item", "options")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    item: TextItem
    options: EncodeOptions
    def __init__(self, item_id: _Optional[int] = ..., item: _Optional[_Union[TextItem, _Mapping]] = ..., options: _Optional[_Union[EncodeOptions, _Mapping]] = ...) -> None: ...

class EncodeStreamResponse(_message.Message):
    __slots__ = ("item_id", "sequence", "error", "details", "vocabulary")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    sequence: _tokens_pb2.TokenSequence
    error: _error_reason_pb2.ItemError
    details: EncodingDetails
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, item_id: _Optional[int] = ..., sequence: _Optional[_Union[_tokens_pb2.TokenSequence, _Mapping]] = ..., error: _Optional[_Union[_error_reason_pb2.ItemError, _Mapping]] = ..., details: _Optional[_Union[EncodingDetails, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class DecodeOptions(_message.Message):
    __slots__ = ("skip_special_tokens", "clean_up_tokenization_spaces")
    SKIP_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CLEAN_UP_TOKENIZATION_SPACES_FIELD_NUMBER: _ClassVar[int]
    skip_special_tokens: bool
    clean_up_tokenization_spaces: bool
    def __init__(self, skip_special_tokens: _Optional[bool] = ..., clean_up_tokenization_spaces: _Optional[bool] = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("batch", "options", "return_bytes", "check_round_trip", "vocabulary")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RETURN_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHECK_ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    batch: _tokens_pb2.PromptBatch
    options: DecodeOptions
    return_bytes: bool
    check_round_trip: bool
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, batch: _Optional[_Union[_tokens_pb2.PromptBatch, _Mapping]] = ..., options: _Optional[_Union[DecodeOptions, _Mapping]] = ..., return_bytes: _Optional[bool] = ..., check_round_trip: _Optional[bool] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class DecodedText(_message.Message):
    __slots__ = ("text", "raw_bytes", "round_trip", "first_difference")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    FIRST_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    raw_bytes: bytes
    round_trip: bool
    first_difference: int
    def __init__(self, text: _Optional[str] = ..., raw_bytes: _Optional[bytes] = ..., round_trip: _Optional[bool] = ..., first_difference: _Optional[int] = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("texts", "vocabulary")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedCompositeFieldContainer[DecodedText]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, texts: _Optional[_Iterable[_Union[DecodedText, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class DecodeStreamRequest(_message.Message):
    __slots__ = ("sequence_id", "ids", "end_of_sequence", "options")
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    END_OF_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    sequence_id: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    end_of_sequence: bool
    options: DecodeOptions
    def __init__(self, sequence_id: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., end_of_sequence: _Optional[bool] = ..., options: _Optional[_Union[DecodeOptions, _Mapping]] = ...) -> None: ...

class DecodeStreamResponse(_message.Message):
    __slots__ = ("sequence_id", "text", "pending_byte_count", "end_of_sequence", "vocabulary")
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PENDING_BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    END_OF_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    sequence_id: int
    text: str
    pending_byte_count: int
    end_of_sequence: bool
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, sequence_id: _Optional[int] = ..., text: _Optional[str] = ..., pending_byte_count: _Optional[int] = ..., end_of_sequence: _Optional[bool] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class PadRequest(_message.Message):
    __slots__ = ("token_batch", "padding")
    TOKEN_BATCH_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    token_batch: _tokens_pb2.TokenBatch
    padding: PaddingOptions
    def __init__(self, token_batch: _Optional[_Union[_tokens_pb2.TokenBatch, _Mapping]] = ..., padding: _Optional[_Union[PaddingOptions, _Mapping]] = ...) -> None: ...

class PadResponse(_message.Message):
    __slots__ = ("padded_batch", "vocabulary")
    PADDED_BATCH_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    padded_batch: _tokens_pb2.PaddedBatch
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, padded_batch: _Optional[_Union[_tokens_pb2.PaddedBatch, _Mapping]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ChatMessage(_message.Message):
    __slots__ = ("role", "content", "extra_json")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    EXTRA_JSON_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    extra_json: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., extra_json: _Optional[str] = ...) -> None: ...

class Conversation(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ...) -> None: ...

class ApplyChatTemplateRequest(_message.Message):
    __slots__ = ("conversations", "add_generation_prompt", "continue_final_message", "template_name", "tools_json", "documents_json", "template_arguments_json", "parse_special_tokens", "padding", "truncation")
    CONVERSATIONS_FIELD_NUMBER: _ClassVar[int]
    ADD_GENERATION_PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONTINUE_FINAL_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_NAME_FIELD_NUMBER: _ClassVar[int]
    TOOLS_JSON_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    PARSE_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    conversations: _containers.RepeatedCompositeFieldContainer[Conversation]
    add_generation_prompt: bool
    continue_final_message: bool
    template_name: str
    tools_json: str
    documents_json: str
    template_arguments_json: str
    parse_special_tokens: bool
    padding: PaddingOptions
    truncation: TruncationOptions
    def __init__(self, conversations: _Optional[_Iterable[_Union[Conversation, _Mapping]]] = ..., add_generation_prompt: _Optional[bool] = ..., continue_final_message: _Optional[bool] = ..., template_name: _Optional[str] = ..., tools_json: _Optional[str] = ..., documents_json: _Optional[str] = ..., template_arguments_json: _Optional[str] = ..., parse_special_tokens: _Optional[bool] = ..., padding: _Optional[_Union[PaddingOptions, _Mapping]] = ..., truncation: _Optional[_Union[TruncationOptions, _Mapping]] = ...) -> None: ...

class ApplyChatTemplateResponse(_message.Message):
    __slots__ = ("texts", "token_batch", "padded_batch", "template_fingerprint", "vocabulary")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BATCH_FIELD_NUMBER: _ClassVar[int]
    PADDED_BATCH_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    token_batch: _tokens_pb2.TokenBatch
    padded_batch: _tokens_pb2.PaddedBatch
    template_fingerprint: str
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., token_batch: _Optional[_Union[_tokens_pb2.TokenBatch, _Mapping]] = ..., padded_batch: _Optional[_Union[_tokens_pb2.PaddedBatch, _Mapping]] = ..., template_fingerprint: _Optional[str] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class CountTokensRequest(_message.Message):
    __slots__ = ("items", "add_special_tokens", "parse_special_tokens")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ADD_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PARSE_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TextItem]
    add_special_tokens: bool
    parse_special_tokens: bool
    def __init__(self, items: _Optional[_Iterable[_Union[TextItem, _Mapping]]] = ..., add_special_tokens: _Optional[bool] = ..., parse_special_tokens: _Optional[bool] = ...) -> None: ...

class CountTokensResponse(_message.Message):
    __slots__ = ("counts", "vocabulary")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, counts: _Optional[_Iterable[int]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class ConvertTokensRequest(_message.Message):
    __slots__ = ("tokens", "ids")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[str]] = ..., ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ConvertedToken(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ConvertTokensResponse(_message.Message):
    __slots__ = ("tokens", "entries", "vocabulary")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[ConvertedToken]
    entries: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.VocabularyEntry]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, tokens: _Optional[_Iterable[_Union[ConvertedToken, _Mapping]]] = ..., entries: _Optional[_Iterable[_Union[_vocabulary_pb2.VocabularyEntry, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class GetTokenizerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChatTemplateInfo(_message.Message):
    __slots__ = ("name", "fingerprint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class TokenizerLimits(_message.Message):
    __slots__ = ("max_items", "max_text_bytes", "max_message_bytes", "max_padded_cells")
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PADDED_CELLS_FIELD_NUMBER: _ClassVar[int]
    max_items: int
    max_text_bytes: int
    max_message_bytes: int
    max_padded_cells: int
    def __init__(self, max_items: _Optional[int] = ..., max_text_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_padded_cells: _Optional[int] = ...) -> None: ...

class GetTokenizerInfoResponse(_message.Message):
    __slots__ = ("vocabulary", "base_size", "model_max_length", "special_tokens", "pad_token_id", "control_token_ids", "model_type", "chat_templates", "limits", "server_version", "token_bytes_concatenate")
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    BASE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODEL_MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROL_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BYTES_CONCATENATE_FIELD_NUMBER: _ClassVar[int]
    vocabulary: _vocabulary_pb2.VocabularyRef
    base_size: int
    model_max_length: int
    special_tokens: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.SpecialToken]
    pad_token_id: int
    control_token_ids: _containers.RepeatedScalarFieldContainer[int]
    model_type: str
    chat_templates: _containers.RepeatedCompositeFieldContainer[ChatTemplateInfo]
    limits: TokenizerLimits
    server_version: str
    token_bytes_concatenate: bool
    def __init__(self, vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ..., base_size: _Optional[int] = ..., model_max_length: _Optional[int] = ..., special_tokens: _Optional[_Iterable[_Union[_vocabulary_pb2.SpecialToken, _Mapping]]] = ..., pad_token_id: _Optional[int] = ..., control_token_ids: _Optional[_Iterable[int]] = ..., model_type: _Optional[str] = ..., chat_templates: _Optional[_Iterable[_Union[ChatTemplateInfo, _Mapping]]] = ..., limits: _Optional[_Union[TokenizerLimits, _Mapping]] = ..., server_version: _Optional[str] = ..., token_bytes_concatenate: _Optional[bool] = ...) -> None: ...

class GetVocabularyRequest(_message.Message):
    __slots__ = ("start_id",)
    START_ID_FIELD_NUMBER: _ClassVar[int]
    start_id: int
    def __init__(self, start_id: _Optional[int] = ...) -> None: ...

class GetVocabularyResponse(_message.Message):
    __slots__ = ("entries", "vocabulary")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_vocabulary_pb2.VocabularyEntry]
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, entries: _Optional[_Iterable[_Union[_vocabulary_pb2.VocabularyEntry, _Mapping]]] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class GetTokenizerArtifactRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTokenizerArtifactResponse(_message.Message):
    __slots__ = ("data", "sha256", "vocabulary")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    sha256: str
    vocabulary: _vocabulary_pb2.VocabularyRef
    def __init__(self, data: _Optional[bytes] = ..., sha256: _Optional[str] = ..., vocabulary: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...

class WatchVocabularyRequest(_message.Message):
    __slots__ = ("after_revision", "heartbeat_interval")
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    heartbeat_interval: _duration_pb2.Duration
    def __init__(self, after_revision: _Optional[int] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchVocabularyResponse(_message.Message):
    __slots__ = ("change", "heartbeat")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    change: _vocabulary_pb2.VocabularyChange
    heartbeat: _vocabulary_pb2.VocabularyRef
    def __init__(self, change: _Optional[_Union[_vocabulary_pb2.VocabularyChange, _Mapping]] = ..., heartbeat: _Optional[_Union[_vocabulary_pb2.VocabularyRef, _Mapping]] = ...) -> None: ...
