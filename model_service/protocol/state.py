"""What the engine says about itself: the model, its load, its steps."""

from typing import Literal

import msgspec

from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_description import ProcessorDescription


class EngineInfo(msgspec.Struct, frozen=True):
    """What the engine knows once the model is loaded. Sent once, in `Ready`."""

    architecture: str
    dtype: str
    parameter_count: int
    hidden_size: int
    layer_count: int
    context_length: int
    vocabulary_size: int
    """Number of ids at revision 0."""

    embedding_row_count: int
    """Rows of the checkpoint's embedding, padding included."""

    tied_embeddings: bool
    eos_token_ids: list[int]
    bos_token_id: int | None
    pad_token_id: int | None
    default_config: GenerationConfig
    """What an empty request uses; `max_new_tokens` is the server's default."""

    device_map: dict[str, str]
    execution_path: Literal["fast", "compat"]
    attention: str
    rng: str
    kv_total_tokens: int
    """Tokens of KV cache in total."""

    kv_session_tokens: int
    """Those that the rows of one session may reserve."""

    kv_bytes_per_token: int
    reserved_rows: int
    max_running_sequences: int
    load_s: float
    custom_processors: tuple[ProcessorDescription, ...] = ()
    """Processors that the operator added."""

    weight_format: str = ""
    """Type in which linear layers keep their weights: that of `dtype`, or `int8`."""

    rowless_id_count: int = 0
    """How many of the last ids of revision 0 the tokenizer has without a row in the model."""

    not_generable: set[int] = set()
    """Added ids that must not be generated, also those of later revisions."""

    @property
    def ids_without_rows(self) -> range:
        """Ids that no request may hold."""
        return range(self.vocabulary_size - self.rowless_id_count, self.vocabulary_size)


class Ready(msgspec.Struct, tag="ready"):
    """The model is loaded."""

    info: EngineInfo


LoadStage = Literal["weights", "self-test"]


class LoadProgress(msgspec.Struct, tag="load_progress"):
    """Where loading is."""

    stage: LoadStage
    ratio: float
    """[0, 1]"""


class LoadFailed(msgspec.Struct, tag="load_failed"):
    """The model cannot be served; the process exits."""

    reason: str
    """For the operator: what is wrong, and the remedy."""


GraphState = Literal["off", "compiling", "ready", "unavailable"]


class GraphStatus(msgspec.Struct, frozen=True, tag="graph_status"):
    """Whether steps run compiled. Sent after `Ready` and whenever it changes."""

    state: GraphState = "off"
    reason: str = ""
    """Why they are unavailable, or not there yet."""


class Load(msgspec.Struct, frozen=True):
    """How full the engine is."""

    running: int = 0
    """Sequences that hold KV cache for a `Generate`."""

    waiting: int = 0
    """Sequences that have no place yet."""

    kv_used_tokens: int = 0
    """Tokens of KV cache reserved, sessions included."""

    kv_donor_tokens: int = 0
    """Tokens of KV cache kept for reuse; they make way for what is reserved."""


class StepStats(msgspec.Struct, frozen=True):
    """What one step did, for metrics."""

    duration_s: float
    decode_rows: int
    prefill_tokens: int
    forward_s: float
    sample_s: float
    compiled: bool = False
    """Whether the step ran as a compiled graph."""

    drafted: int = 0
    """Guesses of tokens to come that were verified."""

    accepted: int = 0
    """Those of them that were right."""

    assistant_drafted: int = 0
    """Those of the guesses that the assistant model made."""

    assistant_accepted: int = 0
    """Those of them that were right."""

    prefix_hits: int = 0
    """Prompts that began with a copy of another one's KV cache."""

    prefix_hit_tokens: int = 0
    """Tokens that they copied."""

    preempted: int = 0
    """Sequences that lost their place to one of a lower priority number."""

    evicted: int = 0
    """Idle rows of sessions that lost theirs."""
