"""The engine: how it was loaded, how full it is, what its steps do and what its process takes."""

import os
from collections.abc import Callable
from typing import get_args

from prometheus_client import Gauge, Info, ProcessCollector

from model_service.front.metrics.families import PREFIX, TOKEN_BUCKETS, Families
from model_service.protocol import EngineInfo, GraphState, GraphStatus, Load, StepStats
from model_service.protocol.state import LoadStage

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_PATHS = {True: "compiled", False: "eager"}
_PHASES = {True: "prefill", False: "decode"}


class EngineMetrics:
    """Recorded from the engine's reports."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._kv_bytes_per_token = 0
        self._kv_total_tokens = 1
        self._declare_load(families)
        self._declare_steps(families)

    def _declare_load(self, families: Families) -> None:
        self._load_progress = families.gauges(
            "load_progress_ratio", "Progress of loading, by stage.", stage=get_args(LoadStage)
        )
        self._load_seconds = families.gauge("load_seconds", "Duration of loading the model.")
        registry = families.registry
        self._parameters = Gauge(
            f"{PREFIX}parameters",
            "Parameters of the model.",
            ["model_name", "dtype"],
            registry=registry,
        )
        self._cache_config = Info(
            f"{PREFIX}cache_config", "Shape of the KV cache.", ["model_name"], registry=registry
        )
        self._up = families.gauge("engine_up", "1 while the engine process answers.")
        self._threads = families.gauge(
            "engine_process_threads", "Threads of the engine process; 0 while there is none."
        )

    def _declare_steps(self, families: Families) -> None:
        self._running = families.gauge("requests_running", "Sequences in the batch.")
        self._waiting = families.gauge("requests_waiting", "Sequences waiting for a place.")
        self._kv_ratio = families.gauge("kv_cache_usage_ratio", "Share of the KV cache reserved.")
        self._kv_used = families.gauge("kv_cache_used_bytes", "Bytes of KV cache reserved.")
        self._kv_kept = families.gauge("kv_cache_kept_bytes", "Bytes of KV cache kept for reuse.")
        self._kv_limit = families.gauge("kv_cache_limit_bytes", "Bytes of KV cache in total.")
        self._preempted = families.counter(
            "preemptions_total", "Sequences that lost their place to a lower priority number."
        )
        self._evicted = families.counter(
            "session_row_evictions_total", "Idle rows of sessions that lost their KV cache."
        )
        self._step = families.histogram("step_seconds", "Duration of a step.")
        self._forward = families.histograms(
            "forward_seconds", "Time in the model per step.", phase=_PHASES.values()
        )
        self._sample = families.histogram(
            "sample_seconds", "Time in processors and draws per step."
        )
        self._steps = families.counters(
            "steps_total", "Steps, by the path that ran them.", path=_PATHS.values()
        )
        self._graphs = families.gauges(
            "decode_graphs",
            "1 for the state that compiled steps are in.",
            state=get_args(GraphState),
        )
        self._batch_sequences = families.histogram(
            "batch_sequences", "Sequences that decode in a step.", BATCH_BUCKETS
        )
        self._batch_tokens = families.histogram("batch_tokens", "Tokens of a step.", TOKEN_BUCKETS)
        self._cached_tokens = families.counter(
            "prefix_cache_hit_tokens_total", "Prompt tokens whose KV cache was reused."
        )
        self._cache_hits = families.counter(
            "prefix_cache_hits_total", "Prompts with a reused part."
        )
        self._drafts = families.counter("drafts_total", "Guesses of tokens that were verified.")
        self._accepted_drafts = families.counter(
            "accepted_drafts_total", "Guesses of tokens that were right."
        )
        self._assistant_drafts = families.counter(
            "assistant_drafts_total", "Guesses that the assistant model made."
        )
        self._accepted_assistant_drafts = families.counter(
            "accepted_assistant_drafts_total", "Guesses of the assistant model that were right."
        )

    # --- The process ----------------------------------------------------------------------------

    def watch_process(self, pid: Callable[[], int | None]) -> None:
        """Shows memory, processor time and threads of the engine process at each scrape.

        Args:
            pid: gives its process id; None while there is none.
        """
        ProcessCollector(
            namespace=f"{PREFIX}engine", pid=lambda: pid() or "", registry=self._families.registry
        )
        self._threads.set_function(lambda: _num_threads(pid()))

    def loading(self, stage: LoadStage, ratio: float) -> None:
        """Notes how far loading is."""
        self._load_progress.of(stage).set(ratio)

    def loaded(self, info: EngineInfo) -> None:
        """Notes what was loaded."""
        model = self._families.model_name
        self._load_seconds.set(info.load_s)
        self._parameters.labels(model, info.dtype).set(info.parameter_count)
        self._kv_bytes_per_token = info.kv_bytes_per_token
        self._kv_total_tokens = info.kv_total_tokens
        self._kv_limit.set(info.kv_bytes_per_token * info.kv_total_tokens)
        self._cache_config.labels(model).info(
            {"num_tokens": str(info.kv_total_tokens), "dtype": info.dtype}
        )
        self._up.set(1)

    def lost(self) -> None:
        """Notes that the engine is gone."""
        self._up.set(0)

    # --- Steps ----------------------------------------------------------------------------------

    def filled(self, load: Load) -> None:
        """Notes how full the engine is."""
        self._running.set(load.running)
        self._waiting.set(load.waiting)
        self._kv_ratio.set(load.kv_used_tokens / self._kv_total_tokens)
        self._kv_used.set(load.kv_used_tokens * self._kv_bytes_per_token)
        self._kv_kept.set(load.kv_donor_tokens * self._kv_bytes_per_token)

    def stepped(self, stats: StepStats) -> None:
        """Records one step."""
        self._step.observe(stats.duration_s)
        self._forward.of(_PHASES[stats.prefill_tokens > 0]).observe(stats.forward_s)
        self._sample.observe(stats.sample_s)
        self._steps.of(_PATHS[stats.compiled]).inc()
        self._batch_sequences.observe(stats.decode_rows)
        self._batch_tokens.observe(stats.decode_rows + stats.drafted + stats.prefill_tokens)
        self._drafts.inc(stats.drafted)
        self._accepted_drafts.inc(stats.accepted)
        self._assistant_drafts.inc(stats.assistant_drafted)
        self._accepted_assistant_drafts.inc(stats.assistant_accepted)
        self._cache_hits.inc(stats.prefix_hits)
        self._cached_tokens.inc(stats.prefix_hit_tokens)
        self._preempted.inc(stats.preempted)
        self._evicted.inc(stats.evicted)

    def graphs_changed(self, graphs: GraphStatus) -> None:
        """Notes what state compiled steps are in."""
        for state in get_args(GraphState):
            self._graphs.of(state).set(state == graphs.state)


def _num_threads(pid: int | None) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:  # not started, ended, or a system without /proc
        return 0
