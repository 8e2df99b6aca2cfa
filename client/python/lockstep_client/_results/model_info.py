"""Descriptions of a model server."""

import json
from dataclasses import dataclass
from typing import Any, Self

from lockstep.v1 import model_info_service_pb2 as info_pb

from lockstep_client._requests import generation_config
from lockstep_client._results.determinism import Determinism
from lockstep_client._results.reading import read
from lockstep_client._values import durations
from lockstep_client._values.one_line import one_line
from lockstep_client._values.vocabulary_ref import VocabularyRef


@dataclass(frozen=True, slots=True)
class VocabularyFollowing:
    """How a model service keeps up with a tokenizer service.

    Attributes:
        state: `base` (none is followed), `following`, `catching_up`, `disconnected` or
            `conflict` (it has another vocabulary, or a change that does not fit the model);
            `unspecified` from an older server.
        reason: why nothing is taken from the tokenizer service.
        lag_revision_count: revisions that it is known to have and that are not served here.
        silence_s: time since it was last heard of; None before the first time.
    """

    state: str
    reason: str
    lag_revision_count: int
    silence_s: float | None

    @classmethod
    def from_message(cls, message: info_pb.VocabularyFollowing) -> Self:
        """Reads the wire form."""
        heard = message.HasField("silence")
        return read(cls, message, silence_s=durations.seconds(message.silence) if heard else None)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a model.

    Attributes:
        model_id: its name.
        model_fingerprint: SHA-256 over the checkpoint's files, hexadecimal.
        architecture: for example `LlamaForCausalLM`.
        dtype: of weights and KV cache.
        parameter_count: number of parameters.
        hidden_size: width of the residual stream.
        layer_count: number of layers.
        context_length: most tokens of a sequence, prompt included.
        embedding_row_count: rows of the input embedding.
        vocabulary: the newest vocabulary that the server serves.
        vocabulary_followed: whether a tokenizer service is followed.
        vocabulary_following: how far it was kept up with.
        tied_embeddings: whether input embedding and output head share rows.
        eos_token_ids: end-of-sequence ids.
        bos_token_id: beginning-of-sequence id, if any.
        pad_token_id: pad id, if any.
        default_generation_config: what an empty request uses.
        device_map: module name to device.
        execution_path: `fast` or `compat`.
        boot_id: changes with every start of the engine.
        server_version: version of the server.
        determinism: how far results can be reproduced.
        decode_graph_state: whether decoding steps run compiled: `off`, `compiling`, `ready` or
            `unavailable`; `unspecified` from an older server.
        decode_graph_reason: why they are unavailable, or not there yet.
        assistant_model_id: the model that drafts tokens; empty where there is none.
    """

    model_id: str
    model_fingerprint: str
    architecture: str
    dtype: str
    parameter_count: int
    hidden_size: int
    layer_count: int
    context_length: int
    embedding_row_count: int
    vocabulary: VocabularyRef
    vocabulary_followed: bool
    vocabulary_following: VocabularyFollowing
    tied_embeddings: bool
    eos_token_ids: list[int]
    bos_token_id: int | None
    pad_token_id: int | None
    default_generation_config: dict[str, Any]
    device_map: dict[str, str]
    execution_path: str
    boot_id: str
    server_version: str
    determinism: Determinism
    decode_graph_state: str
    decode_graph_reason: str
    assistant_model_id: str

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: info_pb.GetModelInfoResponse) -> Self:
        """Reads the wire form."""
        return read(
            cls,
            message,
            vocabulary=VocabularyRef.from_message(message.vocabulary),
            vocabulary_following=VocabularyFollowing.from_message(message.vocabulary_following),
            default_generation_config=generation_config.to_dict(message.default_generation_config),
            determinism=Determinism.from_message(message.determinism),
        )


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model server supports.

    Attributes:
        methods: `supported`, `slow` or `unsupported` by full method name.
        generation_fields: the same by field of the generation configuration.
        score_dtypes: types that full rows can be returned in.
        limits: by the names that the schema gives them.
        determinism_level: `seeded`, `batch_invariant` or `bitwise`.
    """

    methods: dict[str, str]
    generation_fields: dict[str, str]
    score_dtypes: list[str]
    limits: dict[str, int]
    determinism_level: str

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: info_pb.GetCapabilitiesResponse) -> Self:
        """Reads the wire form."""
        limits = {
            field.name: getattr(message.limits, field.name)
            for field in message.limits.DESCRIPTOR.fields
        }
        return read(cls, message, limits=limits)


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a model server is.

    Attributes:
        running_sequence_count: sequences taking part in steps.
        waiting_sequence_count: sequences waiting.
        session_count: open sessions.
        kv_used_token_count: tokens of KV cache reserved.
        kv_total_token_count: tokens of KV cache in total.
        tokens_per_second: generated over the last 10 seconds.
    """

    running_sequence_count: int
    waiting_sequence_count: int
    session_count: int
    kv_used_token_count: int
    kv_total_token_count: int
    tokens_per_second: float

    @classmethod
    def from_message(cls, message: info_pb.GetLoadResponse) -> Self:
        """Reads the wire form."""
        return read(cls, message)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a request would run.

    Attributes:
        effective_config: the configuration, every field resolved.
        applied_processors: the processors, in order.
        kv_token_count: tokens of KV cache that would be reserved.
        max_response_bytes: bytes of the largest response possible.
    """

    effective_config: dict[str, Any]
    applied_processors: tuple[str, ...]
    kv_token_count: int
    max_response_bytes: int

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: info_pb.ValidateRequestResponse) -> Self:
        """Reads the wire form."""
        return read(
            cls,
            message,
            effective_config=generation_config.to_dict(message.effective_config),
            applied_processors=tuple(message.applied_processors),
        )


@dataclass(frozen=True, slots=True)
class LogitsProcessor:
    """A processor that a request may name.

    Attributes:
        name: its name.
        description: what it does.
        arguments_schema: JSON schema of its arguments.
        warper: whether it is applied only when sampling.
        repeatable: whether it may be named more than once.
    """

    name: str
    description: str
    arguments_schema: dict[str, Any]
    warper: bool
    repeatable: bool

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: info_pb.LogitsProcessorInfo) -> Self:
        """Reads the wire form."""
        schema = json.loads(message.arguments_schema_json)
        return read(cls, message, arguments_schema=schema)
