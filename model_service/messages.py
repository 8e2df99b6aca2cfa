"""What crosses the socket between the front and the engine process.

Own types in msgpack: no protobuf, no pickle, no tensors. The front sends
commands; the engine answers with one `Report` per step that holds every event
of that step. A `request_id` is the front's counter and names one call.

Neither side blocks on the other: commands wait in the engine's inbox until the
next step boundary, and events wait in the socket.
"""

from typing import Any, Literal

import msgspec

from model_service.generation import (
    FinishReason,
    GenerationConfig,
    PositionScores,
    ScoreSelection,
)
from model_service.processor_description import ProcessorDescription


class SequenceSpec(msgspec.Struct, frozen=True, array_like=True):
    """One row to run."""

    prompt_token_ids: list[int]
    """At least one id, each in [0, vocabulary size of the revision)."""

    seed: int
    """Seed of this row's draws, [0, 2^63). Equal seeds draw equally in any row of any call."""

    max_new_tokens: int | None = None
    """Upper bound on this row's new tokens; None means that of the configuration."""

    num_padding: int = 0
    """Padding that the prompt came with, as far as lengths count it."""

    num_prompt_tokens: int | None = None
    """Leading ids that count as the prompt; None means all. The others are given, and count as
    generated. Sessions only."""


class EngineSettings(msgspec.Struct, frozen=True):
    """What the engine process is started with: JSON in its only argument."""

    socket_path: str
    """Unix socket that the front listens on; the engine connects to it."""

    ring_name: str
    """Name of the shared ring."""

    model_folder: str
    """Checked folder with `config.json` and safetensors weights."""

    adapter_folder: str = ""
    """Checked folder of a LoRA adapter to merge, or nothing."""

    dtype: str = "auto"
    """`float32`, `bfloat16`, `float16`, or `auto` for the checkpoint's own."""

    device_map: str = "auto"
    """`auto`, `balanced`, `sequential`, one device, or a JSON object of module to device."""

    threads: int = 0
    """OpenMP threads; 0 means one per core."""

    max_running_sequences: int = 32
    """Most rows in one step, sessions included."""

    max_waiting_sequences: int = 64
    """Most rows that wait for a place."""

    max_session_rows: int = 256
    """Most rows of open sessions."""

    max_context_tokens: int = 0
    """Most tokens of a sequence; 0 means what the model was made for, at most 8192."""

    max_kv_tokens: int = 0
    """Tokens of KV cache in all; 0 means what `max_running_sequences` full contexts need, as far
    as memory allows."""

    prefill_budget_s: float = 0.1
    """Time that prefill may add to a step in which other sequences decode; up to four times as much
    while more sequences wait for their prompts than decode."""

    default_max_new_tokens: int = 256
    """`max_new_tokens` of a request that gives none."""

    vocabulary_size: int = 0
    """Ids of the tokenizer at revision 0; 0 means as many as the embedding has rows. A checkpoint's
    embedding may be padded beyond it: those rows are never generated."""

    reserved_vocabulary_rows: int = 8192
    """Rows kept free behind the embedding for vocabulary growth."""

    decode_graphs: Literal["auto", "off"] = "off"
    """Whether steps are compiled in the background where that is possible."""

    logits_processors: tuple[str, ...] = ()
    """Modules with processors of the operator's."""


# --- Commands: front to engine ---------------------------------------------------------------


class Generate(msgspec.Struct, tag="generate"):
    """Runs sequences to their end. Answered by `SequenceTokens` until each has finished."""

    request_id: int
    sequences: list[SequenceSpec]
    config: GenerationConfig
    revision: int
    """Vocabulary revision whose ids the sequences see."""

    selection: ScoreSelection | None = None
    """What to return about each generated token."""

    prompt_selection: ScoreSelection | None = None
    """What to return about each prompt token."""

    priority: int = 0
    """Lower goes first."""

    sequences_per_prompt: int = 1
    """Neighbors among the sequences that have the same prompt: the results of one beam search."""

    cache_salt: str | None = None
    """Prompts of equal salts may reuse each other's KV cache. None: nobody reuses anything."""


class Cancel(msgspec.Struct, tag="cancel"):
    """Ends a call at the next step boundary. Unknown ids are ignored.

    A step of a session is undone: its rows are as they were before it. What was
    already found out about rows is still sent, so that the ring can be released.
    """

    request_id: int


class OpenSession(msgspec.Struct, tag="open_session"):
    """Prefills rows and keeps them. Answered by `SessionAnswer`."""

    request_id: int
    session_id: str
    sequences: list[SequenceSpec]
    config: GenerationConfig
    revision: int
    max_length: int
    """Most tokens of a row; so many tokens of KV cache are reserved while it has a slot."""

    selection: ScoreSelection
    cache_salt: str | None = None
    """As in `Generate`."""

    sample: bool = False
    """Whether the engine chooses the next token of each row."""

    append: bool = False
    """Whether the chosen token is appended."""


class GenerateSession(msgspec.Struct, tag="generate_session"):
    """Opens a session and runs its rows to their end. Answered as `Generate`.

    Nothing is left of a session of which a row fails, or whose call is cancelled
    before the last row has ended.
    """

    request_id: int
    session_id: str
    sequences: list[SequenceSpec]
    config: GenerationConfig
    revision: int
    max_length: int
    """Tokens of KV cache reserved per row, those to be generated included."""

    selection: ScoreSelection | None = None
    """What to return about each generated token."""

    prompt_selection: ScoreSelection | None = None
    """What to return about each prompt token."""

    cache_salt: str | None = None
    """As of `Generate`."""


class ContinueSession(msgspec.Struct, tag="continue_session"):
    """Runs the rows of a session to their end. Answered as `Generate`.

    Cancelled before the last row has ended, it is undone as a whole.
    """

    request_id: int
    session_id: str
    config: GenerationConfig
    """How tokens are chosen by this call; the session keeps its own configuration."""

    max_new_tokens: list[int]
    """Most new tokens of each row."""

    selection: ScoreSelection | None = None
    """What to return about each generated token."""


class StepRow(msgspec.Struct, frozen=True, array_like=True):
    """What one row of a session does in a step."""

    token_ids: list[int]
    """Ids to append; empty leaves the row alone."""

    expected_position: int | None


class StepSession(msgspec.Struct, tag="step_session"):
    """Appends tokens to rows. Answered by `SessionAnswer`."""

    request_id: int
    session_id: str
    rows: list[StepRow]
    selection: ScoreSelection
    sample: bool = False
    """Whether the engine chooses the next token of each stepped row."""

    append: bool = False
    """Whether the chosen token is appended (its KV entry is written with the next step)."""

    look_ahead: bool = False
    """Whether the rows are put back afterwards to where they were."""


class TruncateSession(msgspec.Struct, tag="truncate_session"):
    """Forgets tokens. Answered by `SessionAnswer` without scores."""

    request_id: int
    session_id: str
    lengths: list[int]
    """Tokens to keep, one per row."""


class ForkSession(msgspec.Struct, tag="fork_session"):
    """Copies rows to new sessions, all of them or none. Answered by `SessionForked`."""

    request_id: int
    session_id: str
    fork_ids: list[str]
    """Names of the new sessions."""

    rows: list[int]
    """Index of the row that becomes each row of every new session."""


class SelectSessionRows(msgspec.Struct, tag="select_session_rows"):
    """Replaces a session's rows. Answered by `SessionAnswer` without scores."""

    request_id: int
    session_id: str
    rows: list[int]
    """Index of the old row that becomes each new row."""


class RebindSession(msgspec.Struct, tag="rebind_session"):
    """Moves rows to a newer vocabulary revision. Answered by `SessionAnswer` without scores."""

    request_id: int
    session_id: str
    revision: int
    """One that is there, not older than that of the rows."""


class DescribeSession(msgspec.Struct, tag="describe_session"):
    """Asks for a session's tokens. Answered by `SessionDescription`."""

    request_id: int
    session_id: str


class CloseSession(msgspec.Struct, tag="close_session"):
    """Frees a session. Answered by `SessionDescription` without tokens."""

    request_id: int
    session_id: str


class SpellTokens(msgspec.Struct, tag="spell_tokens"):
    """Says which bytes the ids of revision 0 stand for. Comes before any stop string. No answer."""

    token_bytes: list[bytes]
    """By id."""


class NewRow(msgspec.Struct, frozen=True):
    """One new id, and its embedding rows."""

    token_id: int
    initialization: Literal["mean_of_pieces", "mean", "copy", "zero", "values"]
    generable: bool
    previous_ids: list[int] = []
    copy_token_id: int | None = None
    input_values: bytes = b""
    """`[H]` float32, little-endian, for `values`."""

    output_values: bytes = b""
    """`[H]` float32, little-endian; empty means the input values."""

    token_bytes: bytes = b""
    """The bytes that the id stands for."""


class GrowVocabulary(msgspec.Struct, tag="grow_vocabulary"):
    """Appends one revision. Answered by `VocabularyGrown`."""

    request_id: int
    revision: int
    """Number of the new revision: the newest one plus one."""

    rows: list[NewRow]
    """Rows in order of id, without gaps, starting at the present size."""


class FlushPrefixCache(msgspec.Struct, tag="flush_prefix_cache"):
    """Drops the KV cache kept for reuse. Answered by `PrefixCacheFlushed`.

    No later prompt reuses what was computed before, not even from sequences that
    are still there.
    """

    request_id: int


class Shutdown(msgspec.Struct, tag="shutdown"):
    """Ends the engine process."""


Command = (
    Generate
    | Cancel
    | OpenSession
    | GenerateSession
    | StepSession
    | ContinueSession
    | TruncateSession
    | ForkSession
    | SelectSessionRows
    | RebindSession
    | DescribeSession
    | CloseSession
    | SpellTokens
    | GrowVocabulary
    | FlushPrefixCache
    | Shutdown
)


class Commands(msgspec.Struct):
    """One frame from the front."""

    commands: list[Command]
    consumed: int = 0
    """Bytes of the shared ring that the front has copied out, ever. See `channel.py`."""


# --- Events: engine to front -----------------------------------------------------------------


class Failure(msgspec.Struct, frozen=True):
    """An error of `rpc.errors`, by class name and keyword arguments."""

    error: str
    arguments: dict[str, Any] = {}


class Finish(msgspec.Struct, frozen=True):
    """How a sequence ended, and where its time went."""

    reason: FinishReason
    failure: Failure | None = None
    """Set for reason `error`."""

    stop_string: str = ""
    """Set for reason `stop_string`."""

    sequence_score: float | None = None
    """Score of the sequence, set by beam search."""

    beam_indices: list[int] = []
    """Beam that each token came from, set by beam search."""

    cached_prompt_tokens: int = 0
    """Prompt tokens whose KV cache was reused."""

    steps: int = 0
    """Steps that the sequence took part in."""

    queue_s: float = 0.0
    """From arrival to the first prefill step."""

    prefill_s: float = 0.0
    """From the first prefill step to the first token."""

    decode_s: float = 0.0
    """From the first token to the last."""


class SequenceTokens(msgspec.Struct, tag="tokens"):
    """New tokens of one row of a `Generate`."""

    request_id: int
    row: int
    """Index in `Generate.sequences`."""

    token_ids: list[int]
    scores: list[PositionScores] = []
    """One per token, when asked for."""

    prompt_scores: list[PositionScores] = []
    """With the first token only, when asked for."""

    finish: Finish | None = None
    """Set with the last event of the row. Nothing follows it."""


class Rejected(msgspec.Struct, tag="rejected"):
    """The whole call failed; nothing follows."""

    request_id: int
    failure: Failure


class SessionRowAnswer(msgspec.Struct, frozen=True):
    """Outcome of a command that opens or changes a session, for one row."""

    position: int
    """Tokens in the row afterwards."""

    scores: list[PositionScores] = []
    sampled_token_id: int | None = None
    finish_reason: FinishReason | None = None
    """Why a generation would end with the sampled token."""

    failure: Failure | None = None


class SessionAnswer(msgspec.Struct, tag="session_answer"):
    """Outcome of a command that opens or changes a session."""

    request_id: int
    rows: list[SessionRowAnswer]
    kv_bytes: int
    """Bytes of KV cache that the session has reserved now."""

    recomputed: bool = False
    """Whether tokens passed through the model again, because their KV cache had been dropped."""

    cached_tokens: int = 0
    """Tokens whose KV cache was copied from another sequence instead of computed."""


class SessionDescription(msgspec.Struct, tag="session_description"):
    """A session's tokens."""

    request_id: int
    rows: list[list[int]]
    """Tokens of each row. After `CloseSession`: what the rows held."""

    kv_bytes: int


class SessionForked(msgspec.Struct, tag="session_forked"):
    """The new sessions exist."""

    request_id: int
    positions: list[int]
    """Tokens in each row of every new session."""

    kv_bytes: int
    """Bytes of KV cache that each new session has reserved."""

    copied_bytes: int
    """Bytes of KV cache that were copied, for all new sessions."""


class VocabularyGrown(msgspec.Struct, tag="vocabulary_grown"):
    """The revision is applied."""

    request_id: int
    revision: int
    size: int
    """Number of ids."""

    reserved_rows: int
    """Rows that can be added before memory is allocated anew."""

    added_rows_sha256: str
    """Over all rows added since revision 0, as float32, input rows before output rows."""

    pause_s: float
    """How long no step could run."""


GraphState = Literal["off", "compiling", "ready", "unavailable"]


class GraphStatus(msgspec.Struct, frozen=True, tag="graph_status"):
    """Whether steps run compiled. Sent after `Ready` and whenever it changes."""

    state: GraphState = "off"
    reason: str = ""
    """Why they are unavailable."""


class PrefixCacheFlushed(msgspec.Struct, tag="prefix_cache_flushed"):
    """Nothing is kept for reuse any more."""

    request_id: int
    token_count: int
    """Tokens dropped."""


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

    prefix_hits: int = 0
    """Prompts that began with a copy of another one's KV cache."""

    prefix_hit_tokens: int = 0
    """Tokens that they copied."""

    preempted: int = 0
    """Sequences that lost their place to one of a lower priority number."""

    evicted: int = 0
    """Idle rows of sessions that lost theirs."""


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


Event = (
    SequenceTokens
    | Rejected
    | SessionAnswer
    | SessionDescription
    | SessionForked
    | VocabularyGrown
    | PrefixCacheFlushed
)


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
    """Tokens of KV cache in all."""

    kv_bytes_per_token: int
    reserved_rows: int
    max_running_sequences: int
    load_s: float
    custom_processors: tuple[ProcessorDescription, ...] = ()
    """Processors that the operator added."""


class Ready(msgspec.Struct, tag="ready"):
    """The model is loaded."""

    info: EngineInfo


class LoadProgress(msgspec.Struct, tag="load_progress"):
    """Where loading is."""

    stage: str
    ratio: float
    """[0, 1]"""


class LoadFailed(msgspec.Struct, tag="load_failed"):
    """The model cannot be served; the process exits."""

    reason: str
    """For the operator: what is wrong and the way out."""


class Report(msgspec.Struct, tag="report"):
    """Every event of one step, or since the last one. Also sent when only the load has changed."""

    events: list[Event]
    load: Load
    """After the step."""

    stats: StepStats | None = None
    """Unset when no step was run."""


Message = Ready | LoadProgress | LoadFailed | GraphStatus | Report
