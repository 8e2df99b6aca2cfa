import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from lockstep.v1 import error_reason_pb2 as _error_reason_pb2
from lockstep.v1 import limits_pb2 as _limits_pb2
from lockstep.v1 import scores_pb2 as _scores_pb2
from lockstep.v1 import tokens_pb2 as _tokens_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SeedMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEED_MODE_UNSPECIFIED: _ClassVar[SeedMode]
    SEED_MODE_COUNTER: _ClassVar[SeedMode]
    SEED_MODE_TORCH: _ClassVar[SeedMode]

class EarlyStopping(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EARLY_STOPPING_UNSPECIFIED: _ClassVar[EarlyStopping]
    EARLY_STOPPING_TRUE: _ClassVar[EarlyStopping]
    EARLY_STOPPING_FALSE: _ClassVar[EarlyStopping]
    EARLY_STOPPING_NEVER: _ClassVar[EarlyStopping]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_EOS_TOKEN: _ClassVar[FinishReason]
    FINISH_REASON_STOP_TOKEN: _ClassVar[FinishReason]
    FINISH_REASON_STOP_STRING: _ClassVar[FinishReason]
    FINISH_REASON_STOP_SEQUENCE: _ClassVar[FinishReason]
    FINISH_REASON_MAX_NEW_TOKENS: _ClassVar[FinishReason]
    FINISH_REASON_CONTEXT_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_TIME_LIMIT: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]
    FINISH_REASON_ERROR: _ClassVar[FinishReason]

class DeterminismLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DETERMINISM_LEVEL_UNSPECIFIED: _ClassVar[DeterminismLevel]
    DETERMINISM_LEVEL_SEEDED: _ClassVar[DeterminismLevel]
    DETERMINISM_LEVEL_BATCH_INVARIANT: _ClassVar[DeterminismLevel]
    DETERMINISM_LEVEL_BITWISE: _ClassVar[DeterminismLevel]
SEED_MODE_UNSPECIFIED: SeedMode
SEED_MODE_COUNTER: SeedMode
SEED_MODE_TORCH: SeedMode
EARLY_STOPPING_UNSPECIFIED: EarlyStopping
EARLY_STOPPING_TRUE: EarlyStopping
EARLY_STOPPING_FALSE: EarlyStopping
EARLY_STOPPING_NEVER: EarlyStopping
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_EOS_TOKEN: FinishReason
FINISH_REASON_STOP_TOKEN: FinishReason
FINISH_REASON_STOP_STRING: FinishReason
FINISH_REASON_STOP_SEQUENCE: FinishReason
FINISH_REASON_MAX_NEW_TOKENS: FinishReason
FINISH_REASON_CONTEXT_LENGTH: FinishReason
FINISH_REASON_TIME_LIMIT: FinishReason
FINISH_REASON_CANCELLED: FinishReason
FINISH_REASON_ERROR: FinishReason
DETERMINISM_LEVEL_UNSPECIFIED: DeterminismLevel
DETERMINISM_LEVEL_SEEDED: DeterminismLevel
DETERMINISM_LEVEL_BATCH_INVARIANT: DeterminismLevel
DETERMINISM_LEVEL_BITWISE: DeterminismLevel

class GenerationConfig(_message.Message):
    __slots__ = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "seed", "repetition_penalty", "min_new_tokens", "num_return_sequences", "stop_token_ids", "eos_token_ids", "stop_strings", "stop_sequences", "lenient", "seed_mode", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "presence_penalty", "frequency_penalty", "prompt_ignore_length", "no_repeat_ngram_size", "encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "logit_bias", "sequence_bias", "bad_words_ids", "allowed_token_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_ids", "forced_prefix", "num_beams", "length_penalty", "early_stopping", "guidance_scale", "negative_prompt", "green_list_watermark", "synth_id_watermark", "max_length", "min_length", "max_time", "prompt_lookup_num_tokens", "max_matching_ngram_size", "renormalize_logits", "remove_invalid_values", "lengths_include_padding", "min_tokens_to_keep", "processors", "top_n_sigma")
    class LogitBiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DO_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    MIN_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_RETURN_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    STOP_STRINGS_FIELD_NUMBER: _ClassVar[int]
    STOP_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    LENIENT_FIELD_NUMBER: _ClassVar[int]
    SEED_MODE_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    TOP_H_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_P_FIELD_NUMBER: _ClassVar[int]
    EPSILON_CUTOFF_FIELD_NUMBER: _ClassVar[int]
    ETA_CUTOFF_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IGNORE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    NO_REPEAT_NGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    ENCODER_REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    ENCODER_NO_REPEAT_NGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    EXPONENTIAL_DECAY_LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_BIAS_FIELD_NUMBER: _ClassVar[int]
    BAD_WORDS_IDS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SUPPRESS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BEGIN_SUPPRESS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FORCED_BOS_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    FORCED_EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FORCED_PREFIX_FIELD_NUMBER: _ClassVar[int]
    NUM_BEAMS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    GREEN_LIST_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    SYNTH_ID_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MIN_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_TIME_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOOKUP_NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_MATCHING_NGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    RENORMALIZE_LOGITS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_INVALID_VALUES_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_INCLUDE_PADDING_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_TO_KEEP_FIELD_NUMBER: _ClassVar[int]
    PROCESSORS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_SIGMA_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    seed: int
    repetition_penalty: float
    min_new_tokens: int
    num_return_sequences: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    eos_token_ids: _scores_pb2.TokenIdList
    stop_strings: _containers.RepeatedScalarFieldContainer[str]
    stop_sequences: _containers.RepeatedCompositeFieldContainer[_tokens_pb2.TokenSequence]
    lenient: bool
    seed_mode: SeedMode
    min_p: float
    top_h: float
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    presence_penalty: float
    frequency_penalty: float
    prompt_ignore_length: int
    no_repeat_ngram_size: int
    encoder_repetition_penalty: float
    encoder_no_repeat_ngram_size: int
    exponential_decay_length_penalty: ExponentialDecayLengthPenalty
    logit_bias: _containers.ScalarMap[int, float]
    sequence_bias: _containers.RepeatedCompositeFieldContainer[SequenceBias]
    bad_words_ids: _containers.RepeatedCompositeFieldContainer[_tokens_pb2.TokenSequence]
    allowed_token_ids: _scores_pb2.TokenIdList
    suppress_tokens: _scores_pb2.TokenIdList
    begin_suppress_tokens: _scores_pb2.TokenIdList
    forced_bos_token_id: int
    forced_eos_token_ids: _scores_pb2.TokenIdList
    forced_prefix: _tokens_pb2.TokenSequence
    num_beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    guidance_scale: float
    negative_prompt: _tokens_pb2.TokenSequence
    green_list_watermark: GreenListWatermark
    synth_id_watermark: SynthIdWatermark
    max_length: int
    min_length: int
    max_time: _duration_pb2.Duration
    prompt_lookup_num_tokens: int
    max_matching_ngram_size: int
    renormalize_logits: bool
    remove_invalid_values: bool
    lengths_include_padding: bool
    min_tokens_to_keep: int
    processors: _containers.RepeatedCompositeFieldContainer[LogitsProcessorSpec]
    top_n_sigma: float
    def __init__(self, max_new_tokens: _Optional[int] = ..., do_sample: _Optional[bool] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., repetition_penalty: _Optional[float] = ..., min_new_tokens: _Optional[int] = ..., num_return_sequences: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., eos_token_ids: _Optional[_Union[_scores_pb2.TokenIdList, _Mapping]] = ..., stop_strings: _Optional[_Iterable[str]] = ..., stop_sequences: _Optional[_Iterable[_Union[_tokens_pb2.TokenSequence, _Mapping]]] = ..., lenient: _Optional[bool] = ..., seed_mode: _Optional[_Union[SeedMode, str]] = ..., min_p: _Optional[float] = ..., top_h: _Optional[float] = ..., typical_p: _Optional[float] = ..., epsilon_cutoff: _Optional[float] = ..., eta_cutoff: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., prompt_ignore_length: _Optional[int] = ..., no_repeat_ngram_size: _Optional[int] = ..., encoder_repetition_penalty: _Optional[float] = ..., encoder_no_repeat_ngram_size: _Optional[int] = ..., exponential_decay_length_penalty: _Optional[_Union[ExponentialDecayLengthPenalty, _Mapping]] = ..., logit_bias: _Optional[_Mapping[int, float]] = ..., sequence_bias: _Optional[_Iterable[_Union[SequenceBias, _Mapping]]] = ..., bad_words_ids: _Optional[_Iterable[_Union[_tokens_pb2.TokenSequence, _Mapping]]] = ..., allowed_token_ids: _Optional[_Union[_scores_pb2.TokenIdList, _Mapping]] = ..., suppress_tokens: _Optional[_Union[_scores_pb2.TokenIdList, _Mapping]] = ..., begin_suppress_tokens: _Optional[_Union[_scores_pb2.TokenIdList, _Mapping]] = ..., forced_bos_token_id: _Optional[int] = ..., forced_eos_token_ids: _Optional[_Union[_scores_pb2.TokenIdList, _Mapping]] = ..., forced_prefix: _Optional[_Union[_tokens_pb2.TokenSequence, _Mapping]] = ..., num_beams: _Optional[int] = ..., length_penalty: _Optional[float] = ..., early_stopping: _Optional[_Union[EarlyStopping, str]] = ..., guidance_scale: _Optional[float] = ..., negative_prompt: _Optional[_Union[_tokens_pb2.TokenSequence, _Mapping]] = ..., green_list_watermark: _Optional[_Union[GreenListWatermark, _Mapping]] = ..., synth_id_watermark: _Optional[_Union[SynthIdWatermark, _Mapping]] = ..., max_length: _Optional[int] = ..., min_length: _Optional[int] = ..., max_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., prompt_lookup_num_tokens: _Optional[int] = ..., max_matching_ngram_size: _Optional[int] = ..., renormalize_logits: _Optional[bool] = ..., remove_invalid_values: _Optional[bool] = ..., lengths_include_padding: _Optional[bool] = ..., min_tokens_to_keep: _Optional[int] = ..., processors: _Optional[_Iterable[_Union[LogitsProcessorSpec, _Mapping]]] = ..., top_n_sigma: _Optional[float] = ...) -> None: ...

class ExponentialDecayLengthPenalty(_message.Message):
    __slots__ = ("start_index", "decay_factor")
    START_INDEX_FIELD_NUMBER: _ClassVar[int]
    DECAY_FACTOR_FIELD_NUMBER: _ClassVar[int]
    start_index: int
    decay_factor: float
    def __init__(self, start_index: _Optional[int] = ..., decay_factor: _Optional[float] = ...) -> None: ...

class SequenceBias(_message.Message):
    __slots__ = ("ids", "bias")
    IDS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    bias: float
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., bias: _Optional[float] = ...) -> None: ...

class GreenListWatermark(_message.Message):
    __slots__ = ("greenlist_ratio", "bias", "hashing_key", "self_hash", "context_width")
    GREENLIST_RATIO_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    HASHING_KEY_FIELD_NUMBER: _ClassVar[int]
    SELF_HASH_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    greenlist_ratio: float
    bias: float
    hashing_key: int
    self_hash: bool
    context_width: int
    def __init__(self, greenlist_ratio: _Optional[float] = ..., bias: _Optional[float] = ..., hashing_key: _Optional[int] = ..., self_hash: _Optional[bool] = ..., context_width: _Optional[int] = ...) -> None: ...

class SynthIdWatermark(_message.Message):
    __slots__ = ("ngram_len", "keys", "context_history_size", "sampling_table_seed", "sampling_table_size", "skip_first_ngram_calls")
    NGRAM_LEN_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_HISTORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_TABLE_SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_TABLE_SIZE_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIRST_NGRAM_CALLS_FIELD_NUMBER: _ClassVar[int]
    ngram_len: int
    keys: _containers.RepeatedScalarFieldContainer[int]
    context_history_size: int
    sampling_table_seed: int
    sampling_table_size: int
    skip_first_ngram_calls: bool
    def __init__(self, ngram_len: _Optional[int] = ..., keys: _Optional[_Iterable[int]] = ..., context_history_size: _Optional[int] = ..., sampling_table_seed: _Optional[int] = ..., sampling_table_size: _Optional[int] = ..., skip_first_ngram_calls: _Optional[bool] = ...) -> None: ...

class LogitsProcessorSpec(_message.Message):
    __slots__ = ("name", "arguments_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments_json: str
    def __init__(self, name: _Optional[str] = ..., arguments_json: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_token_count", "cached_prompt_token_count", "completion_token_count", "step_count")
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    prompt_token_count: int
    cached_prompt_token_count: int
    completion_token_count: int
    step_count: int
    def __init__(self, prompt_token_count: _Optional[int] = ..., cached_prompt_token_count: _Optional[int] = ..., completion_token_count: _Optional[int] = ..., step_count: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_duration", "prefill_duration", "decode_duration", "total_duration")
    QUEUE_DURATION_FIELD_NUMBER: _ClassVar[int]
    PREFILL_DURATION_FIELD_NUMBER: _ClassVar[int]
    DECODE_DURATION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_DURATION_FIELD_NUMBER: _ClassVar[int]
    queue_duration: _duration_pb2.Duration
    prefill_duration: _duration_pb2.Duration
    decode_duration: _duration_pb2.Duration
    total_duration: _duration_pb2.Duration
    def __init__(self, queue_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., prefill_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decode_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Determinism(_message.Message):
    __slots__ = ("level", "dtype", "rng", "attention", "model_fingerprint", "weight_format")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    RNG_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    level: DeterminismLevel
    dtype: str
    rng: str
    attention: str
    model_fingerprint: str
    weight_format: str
    def __init__(self, level: _Optional[_Union[DeterminismLevel, str]] = ..., dtype: _Optional[str] = ..., rng: _Optional[str] = ..., attention: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., weight_format: _Optional[str] = ...) -> None: ...

class GeneratedSequence(_message.Message):
    __slots__ = ("prompt_index", "sequence_index", "token_ids", "finish_reason", "scores", "prompt_scores", "seed", "stop_string", "sequence_score", "beam_indices", "error")
    PROMPT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_SCORES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_STRING_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_SCORE_FIELD_NUMBER: _ClassVar[int]
    BEAM_INDICES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    prompt_index: int
    sequence_index: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    finish_reason: FinishReason
    scores: _containers.RepeatedCompositeFieldContainer[_scores_pb2.PositionScores]
    prompt_scores: _containers.RepeatedCompositeFieldContainer[_scores_pb2.PositionScores]
    seed: int
    stop_string: str
    sequence_score: float
    beam_indices: _containers.RepeatedScalarFieldContainer[int]
    error: _error_reason_pb2.ItemError
    def __init__(self, prompt_index: _Optional[int] = ..., sequence_index: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., scores: _Optional[_Iterable[_Union[_scores_pb2.PositionScores, _Mapping]]] = ..., prompt_scores: _Optional[_Iterable[_Union[_scores_pb2.PositionScores, _Mapping]]] = ..., seed: _Optional[int] = ..., stop_string: _Optional[str] = ..., sequence_score: _Optional[float] = ..., beam_indices: _Optional[_Iterable[int]] = ..., error: _Optional[_Union[_error_reason_pb2.ItemError, _Mapping]] = ...) -> None: ...
