"""Metrics of the model service. The registry is passed in, so servers in one test do not collide.

Labels come from closed sets only.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from model_service.front.token_rate import TokenRate
from model_service.protocol import EngineInfo, Finish, GraphState, GraphStatus, Load, StepStats
from model_service.protocol.generation import FinishReason
from rpc import errors

PREFIX = "lockstep_model_"

# The ladder that vLLM and the OpenTelemetry conventions use, with finer steps below.
LATENCY_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKEN_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
LIFETIME_BUCKETS_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200)

_REJECTIONS: dict[type[errors.ServiceError], str] = {
    errors.Overloaded: "queue_full",
    errors.KVCacheExceeded: "kv_full",
    errors.ContextLengthExceeded: "too_long",
    errors.ResponseTooLarge: "response_too_large",
    errors.Draining: "draining",
}

_FINISH_LABELS: dict[FinishReason, str] = {
    "eos_token": "stop",
    "stop_token": "stop",
    "stop_string": "stop",
    "stop_sequence": "stop",
    "max_new_tokens": "length",
    "context_length": "length",
    "time_limit": "time",
    "cancelled": "cancelled",
    "error": "error",
}

_STEP_LABELS = {True: "compiled", False: "eager"}


FollowState = Literal["base", "following", "catching_up", "disconnected", "conflict"]
"""The names are the schema's, without prefix, in lower case."""


class Following(Protocol):
    """How far the vocabulary has kept up, read from the thread that serves metrics."""

    @property
    def state(self) -> FollowState:
        """What the follower is doing."""

    @property
    def connected(self) -> bool:
        """Whether the tokenizer service is being followed now."""

    @property
    def lag(self) -> int:
        """Revisions that the tokenizer service is known to have and that are not served here."""

    @property
    def silence_s(self) -> float | None:
        """Time since the tokenizer service was last heard of, in seconds; None before that."""


class ModelMetrics:
    """What the front records from reports of the engine and from ends of calls."""

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        """Declares every metric.

        Args:
            registry: where they are collected.
            model_name: value of the label `model_name`.
        """
        self._registry = registry
        self._model_name = model_name
        self.token_rate = TokenRate()
        self._kv_bytes_per_token = 0
        self._kv_total_tokens = 1
        self._declare_load()
        self._declare_steps()
        self._declare_sequences()
        self._declare_sessions()

    def _declare_load(self) -> None:
        self._load_progress = self._gauge(
            "load_progress_ratio", "Progress of loading, by stage.", "stage"
        )
        self._load_seconds = self._gauge("load_seconds", "Duration of loading the model.")
        self._parameters = self._gauge("parameters", "Parameters of the model.", "dtype")
        self._cache_config = Info(
            f"{PREFIX}cache_config",
            "Shape of the KV cache.",
            ["model_name"],
            registry=self._registry,
        )
        self._engine_up = self._gauge("engine_up", "1 while the engine process answers.")
        self._engine_up.labels(self._model_name).set(0)

    def _declare_steps(self) -> None:
        self._running = self._gauge("requests_running", "Sequences in the batch.")
        self._waiting = self._gauge("requests_waiting", "Sequences waiting for a place.")
        self._kv_ratio = self._gauge("kv_cache_usage_ratio", "Share of the KV cache reserved.")
        self._kv_used = self._gauge("kv_cache_used_bytes", "Bytes of KV cache reserved.")
        self._kv_kept = self._gauge("kv_cache_kept_bytes", "Bytes of KV cache kept for reuse.")
        self._preempted = self._counter(
            "preemptions_total", "Sequences that lost their place to a lower priority number."
        )
        self._evicted = self._counter(
            "session_row_evictions_total", "Idle rows of sessions that lost their KV cache."
        )
        self._kv_limit = self._gauge("kv_cache_limit_bytes", "Bytes of KV cache in total.")
        self._step = self._histogram("step_seconds", "Duration of a step.", LATENCY_BUCKETS_S)
        self._forward = self._histogram(
            "forward_seconds", "Time in the model per step.", LATENCY_BUCKETS_S, "phase"
        )
        self._sample = self._histogram(
            "sample_seconds", "Time in processors and draws per step.", LATENCY_BUCKETS_S
        )
        self._steps = self._counter("steps_total", "Steps, by the path that ran them.", "path")
        for label in _STEP_LABELS.values():
            self._steps.labels(self._model_name, label)
        self._graphs = self._gauge(
            "decode_graphs", "1 for the state that compiled steps are in.", "state"
        )
        self._batch_sequences = self._histogram(
            "batch_sequences", "Sequences that decode in a step.", BATCH_BUCKETS
        )
        self._batch_tokens = self._histogram("batch_tokens", "Tokens of a step.", TOKEN_BUCKETS)

    def _declare_sequences(self) -> None:
        self._prompt_tokens = self._counter("prompt_tokens_total", "Prompt tokens admitted.")
        self._cached_tokens = self._counter(
            "prefix_cache_hit_tokens_total", "Prompt tokens whose KV cache was reused."
        )
        self._cache_hits = self._counter("prefix_cache_hits_total", "Prompts with a reused part.")
        self._generated_tokens = self._counter("generated_tokens_total", "Tokens generated.")
        self._drafts = self._counter("drafts_total", "Guesses of tokens that were verified.")
        self._accepted_drafts = self._counter(
            "accepted_drafts_total", "Guesses of tokens that were right."
        )
        self._logits_bytes = self._counter(
            "logits_bytes_total", "Bytes of scores returned.", "encoding"
        )
        self._finished = self._counter(
            "requests_finished_total", "Sequences that ended.", "finish_reason"
        )
        for label in sorted(set(_FINISH_LABELS.values())):
            self._finished.labels(self._model_name, label)
        self._nonfinite = self._counter(
            "nonfinite_logits_total", "Sequences whose logits were NaN or infinite."
        )
        self._nonfinite.labels(self._model_name)  # 0, not absent, for the alert on it
        self._rejections = self._counter(
            "admission_rejections_total", "Calls refused for lack of room.", "reason"
        )
        for label in _REJECTIONS.values():
            self._rejections.labels(self._model_name, label)
        self._queue = self._histogram("queue_seconds", "Arrival to prefill.", LATENCY_BUCKETS_S)
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Arrival to first token.", LATENCY_BUCKETS_S
        )
        self._per_token = self._histogram(
            "time_per_output_token_seconds",
            "Mean time between tokens of a sequence.",
            LATENCY_BUCKETS_S,
        )
        self._request = self._histogram(
            "request_seconds", "Arrival to the end of a sequence.", LATENCY_BUCKETS_S
        )

    def _declare_sessions(self) -> None:
        self._sessions = self._gauge("sessions", "Open sessions.", "state")
        self._opened = self._counter("sessions_opened_total", "Sessions opened.")
        self._closed = self._counter("sessions_closed_total", "Sessions closed.", "reason")
        self._lifetime = self._histogram(
            "session_lifetime_seconds", "Time from open to close.", LIFETIME_BUCKETS_S
        )
        self._vocabulary_revision = self._gauge(
            "vocabulary_revision", "Newest vocabulary revision applied."
        )
        self._vocabulary_size = self._gauge("vocabulary_size", "Ids of the newest revision.")
        self._follower_connected = self._gauge(
            "vocabulary_follower_connected", "1 while the tokenizer service is followed."
        )
        self._follow_state = self._gauge(
            "vocabulary_follow_state",
            "1 for the state of following the tokenizer service.",
            "state",
        )
        self._lag = self._gauge(
            "vocabulary_lag_revisions",
            "Known revisions of the tokenizer service that are not served here yet.",
        )
        self._silence = self._gauge(
            "vocabulary_follower_silence_seconds",
            "Time since the last message of the tokenizer service.",
        )
        self._growth_pause = self._histogram(
            "vocabulary_growth_pause_seconds",
            "Time without a step while rows were added; revisions share a pause.",
            LATENCY_BUCKETS_S,
        )

    # --- Loading --------------------------------------------------------------------------------

    def loading(self, stage: str, ratio: float) -> None:
        """Notes how far loading is."""
        self._load_progress.labels(self._model_name, stage).set(ratio)

    def loaded(self, info: EngineInfo) -> None:
        """Notes what was loaded."""
        self._load_seconds.labels(self._model_name).set(info.load_s)
        self._parameters.labels(self._model_name, info.dtype).set(info.parameter_count)
        self._kv_bytes_per_token = info.kv_bytes_per_token
        self._kv_total_tokens = info.kv_total_tokens
        self._kv_limit.labels(self._model_name).set(info.kv_bytes_per_token * info.kv_total_tokens)
        self._cache_config.labels(self._model_name).info(
            {"num_tokens": str(info.kv_total_tokens), "dtype": info.dtype}
        )
        self._engine_up.labels(self._model_name).set(1)

    def engine_lost(self) -> None:
        """Notes that the engine is gone."""
        self._engine_up.labels(self._model_name).set(0)

    # --- Steps and sequences --------------------------------------------------------------------

    def filled(self, load: Load) -> None:
        """Notes how full the engine is."""
        model = self._model_name
        self._running.labels(model).set(load.running)
        self._waiting.labels(model).set(load.waiting)
        self._kv_ratio.labels(model).set(load.kv_used_tokens / self._kv_total_tokens)
        self._kv_used.labels(model).set(load.kv_used_tokens * self._kv_bytes_per_token)
        self._kv_kept.labels(model).set(load.kv_donor_tokens * self._kv_bytes_per_token)

    def stepped(self, stats: StepStats) -> None:
        """Records one step."""
        model = self._model_name
        self._step.labels(model).observe(stats.duration_s)
        phase = "prefill" if stats.prefill_tokens else "decode"
        self._forward.labels(model, phase).observe(stats.forward_s)
        self._sample.labels(model).observe(stats.sample_s)
        self._steps.labels(model, _STEP_LABELS[stats.compiled]).inc()
        self._batch_sequences.labels(model).observe(stats.decode_rows)
        self._batch_tokens.labels(model).observe(
            stats.decode_rows + stats.drafted + stats.prefill_tokens
        )
        self._drafts.labels(model).inc(stats.drafted)
        self._accepted_drafts.labels(model).inc(stats.accepted)
        self._cache_hits.labels(model).inc(stats.prefix_hits)
        self._cached_tokens.labels(model).inc(stats.prefix_hit_tokens)
        self._preempted.labels(model).inc(stats.preempted)
        self._evicted.labels(model).inc(stats.evicted)

    def graphs_changed(self, graphs: GraphStatus) -> None:
        """Notes what state compiled steps are in."""
        for state in get_args(GraphState):
            self._graphs.labels(self._model_name, state).set(state == graphs.state)

    def admitted(self, num_prompt_tokens: int) -> None:
        """Counts the prompt tokens of a call that was started."""
        self._prompt_tokens.labels(self._model_name).inc(num_prompt_tokens)

    def generated(self, num_tokens: int) -> None:
        """Counts generated tokens."""
        self._generated_tokens.labels(self._model_name).inc(num_tokens)
        self.token_rate.add(num_tokens)

    def sequence_finished(self, finish: Finish) -> None:
        """Records the end of a sequence and where its time went."""
        model = self._model_name
        self._finished.labels(model, _FINISH_LABELS[finish.reason]).inc()
        if finish.failure is not None and finish.failure.error == "NonFiniteLogits":
            self._nonfinite.labels(model).inc()
        self._queue.labels(model).observe(finish.queue_s)
        self._first_token.labels(model).observe(finish.queue_s + finish.prefill_s)
        self._request.labels(model).observe(finish.queue_s + finish.prefill_s + finish.decode_s)

    def tokens_per_sequence(self, finish: Finish, num_tokens: int) -> None:
        """Records the pace of a finished sequence."""
        if num_tokens > 1:
            self._per_token.labels(self._model_name).observe(finish.decode_s / (num_tokens - 1))

    def abandoned(self, num_sequences: int, *, failed: bool) -> None:
        """Counts sequences of a call that failed, or that its caller gave up."""
        label = "error" if failed else "cancelled"
        self._finished.labels(self._model_name, label).inc(num_sequences)

    @contextmanager
    def count_rejections(self) -> Iterator[None]:
        """Counts the calls that are refused for want of room while the block runs."""
        try:
            yield
        except tuple(_REJECTIONS) as error:
            label = next(label for kind, label in _REJECTIONS.items() if isinstance(error, kind))
            self._rejections.labels(self._model_name, label).inc()
            raise

    def scores_sent(self, encoding: str, num_bytes: int) -> None:
        """Counts bytes of scores: `float32`, `float16`, `bfloat16`."""
        self._logits_bytes.labels(self._model_name, encoding).inc(num_bytes)

    # --- Sessions and vocabulary ----------------------------------------------------------------

    def sessions(self, active: int, idle: int) -> None:
        """Notes how many sessions there are."""
        self._sessions.labels(self._model_name, "active").set(active)
        self._sessions.labels(self._model_name, "idle").set(idle)

    def session_opened(self) -> None:
        """Counts a session."""
        self._opened.labels(self._model_name).inc()

    def session_closed(self, reason: str, lifetime_s: float) -> None:
        """Records the end of a session: `client`, `idle_timeout` or `error`."""
        self._closed.labels(self._model_name, reason).inc()
        self._lifetime.labels(self._model_name).observe(lifetime_s)

    def vocabulary(self, revision: int, size: int) -> None:
        """Notes the newest revision."""
        self._vocabulary_revision.labels(self._model_name).set(revision)
        self._vocabulary_size.labels(self._model_name).set(size)

    def vocabulary_grown(self, pause_s: float) -> None:
        """Records a growth."""
        self._growth_pause.labels(self._model_name).observe(pause_s)

    def vocabulary_following(self, following: Following) -> None:
        """Shows how far the vocabulary has kept up, at the moment of each scrape."""
        model = self._model_name
        for state in get_args(FollowState):
            gauge = self._follow_state.labels(model, state)
            gauge.set_function(partial(_is_in, following, state))
        if following.state == "base":
            return
        self._follower_connected.labels(model).set_function(lambda: float(following.connected))
        self._lag.labels(model).set_function(lambda: float(following.lag))
        self._silence.labels(model).set_function(
            lambda: math.nan if following.silence_s is None else following.silence_s
        )

    # --- Declarations ---------------------------------------------------------------------------

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, ["model_name", *labels], registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, ["model_name", *labels], registry=self._registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            PREFIX + name,
            text,
            ["model_name", *labels],
            buckets=buckets,
            registry=self._registry,
        )


def _is_in(following: Following, state: FollowState) -> float:
    return float(following.state == state)
