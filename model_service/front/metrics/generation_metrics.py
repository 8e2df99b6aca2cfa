"""Generation: tokens, sequences, their latencies and lengths, and what is refused."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

from model_service.front.metrics.families import TOKEN_BUCKETS, Families
from model_service.front.metrics.token_rate import TokenRate
from model_service.protocol import ContinueSession, Finish, Generate, Request
from model_service.protocol.generation import FinishReason
from rpc import errors, logging, tracing
from rpc.tracing import Trace

GeneratingOperation = Literal["generate", "beam_search", "continue_session"]
"""What a sequence that is generated belongs to."""

PromptOperation = GeneratingOperation | Literal["compute_logits", "score", "open_session"]
"""What a prompt belongs to."""

ENCODINGS = ("float32", "float16", "bfloat16", "selected")

_GENERATING: tuple[str, ...] = get_args(GeneratingOperation)

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

# Of `Overloaded`, by what there is too much of.
_RESOURCES = {
    "sequences": "queue_full",
    "sessions": "max_sessions",
    "session_rows": "max_session_rows",
}

_REFUSALS: dict[type[errors.ServiceError], str] = {
    errors.KVCacheExceeded: "kv_full",
    errors.ContextLengthExceeded: "too_long",
    errors.ResponseTooLarge: "response_too_large",
    errors.Paused: "paused",
    errors.QuotaExceeded: "quota",
}


def operation(request: Request[Any]) -> GeneratingOperation:
    """Returns what the sequences that a call generates are counted as."""
    if isinstance(request, ContinueSession):
        return "continue_session"
    if isinstance(request, Generate) and request.config.num_beams > 1:
        return "beam_search"
    return "generate"


def finish_label(reason: FinishReason) -> str:
    """Returns what the end of a sequence is counted as."""
    return _FINISH_LABELS[reason]


class GenerationMetrics:
    """Recorded by calls, and from events of the engine.

    Attributes:
        token_rate: tokens generated per second now.
    """

    def __init__(self, families: Families) -> None:
        self.token_rate = TokenRate()
        self._base_size = 0
        prompts = (*_GENERATING, "compute_logits", "score", "open_session")
        self._prompt_tokens = families.counters(
            "prompt_tokens_total", "Prompt tokens admitted.", operation=prompts
        )
        self._prompt_lengths = families.histograms(
            "request_prompt_tokens", "Tokens of each prompt.", TOKEN_BUCKETS, operation=prompts
        )
        self._generated_lengths = families.histograms(
            "request_generated_tokens",
            "Tokens of each finished sequence, without its prompt.",
            TOKEN_BUCKETS,
            operation=_GENERATING,
        )
        self._generated_tokens = families.counter("generated_tokens_total", "Tokens generated.")
        self._added_tokens = families.counter(
            "added_tokens_generated_total", "Tokens generated that revision 0 does not have."
        )
        self._logits_bytes = families.counters(
            "logits_bytes_total", "Bytes of scores returned.", encoding=ENCODINGS
        )
        self._finished = families.counters(
            "requests_finished_total",
            "Sequences that ended.",
            operation=_GENERATING,
            finish_reason=sorted(set(_FINISH_LABELS.values())),
        )
        self._nonfinite = families.counter(
            "nonfinite_logits_total", "Sequences whose logits were NaN or infinite."
        )
        self._refusals = families.counters(
            "admission_rejections_total",
            "Calls refused for lack of room.",
            reason=(*_RESOURCES.values(), *_REFUSALS.values()),
        )
        self._queue = families.histograms(
            "queue_seconds", "Arrival to prefill.", operation=_GENERATING
        )
        self._first_token = families.histograms(
            "time_to_first_token_seconds", "Arrival to first token.", operation=_GENERATING
        )
        self._per_token = families.histograms(
            "time_per_output_token_seconds",
            "Mean time between tokens of a sequence.",
            operation=_GENERATING,
        )
        self._gaps = families.histograms(
            "inter_token_latency_seconds",
            "Time between steps that gave a sequence tokens: a stall inside of it shows.",
            operation=_GENERATING,
        )
        self._request = families.histograms(
            "request_seconds", "Arrival to the end of a sequence.", operation=_GENERATING
        )

    def set_base_size(self, size: int) -> None:
        """Notes the number of ids at revision 0; those beyond it were added."""
        self._base_size = size

    def admitted(self, operation: PromptOperation, lengths: Sequence[int]) -> None:
        """Counts the prompts of a call that was started, also for its line of the log.

        Args:
            operation: what the call is.
            lengths: tokens of each prompt.
        """
        logging.count(prompt_tokens=sum(lengths))
        self._prompt_tokens.of(operation).inc(sum(lengths))
        for length in lengths:
            self._prompt_lengths.of(operation).observe(length)

    def generated(self, token_ids: Sequence[int]) -> None:
        """Counts generated tokens."""
        self._generated_tokens.inc(len(token_ids))
        self.token_rate.add(len(token_ids))
        if num_added := sum(token_id >= self._base_size for token_id in token_ids):
            self._added_tokens.inc(num_added)

    def waited(
        self, operation: GeneratingOperation, seconds: float, trace: Trace | None = None
    ) -> None:
        """Records the time between two steps that gave a sequence of a trace tokens."""
        self._gaps.of(operation).observe(seconds, tracing.exemplar(trace))

    def finished(
        self, operation: GeneratingOperation, finish: Finish, trace: Trace | None = None
    ) -> None:
        """Records the end of a sequence of a trace, and where its time went."""
        self._finished.of(operation, finish_label(finish.reason)).inc()
        if finish.failure is not None and finish.failure.error == "NonFiniteLogits":
            self._nonfinite.inc()
        first_token_s = finish.queue_s + finish.prefill_s
        leads_to = tracing.exemplar(trace)
        self._queue.of(operation).observe(finish.queue_s, leads_to)
        self._first_token.of(operation).observe(first_token_s, leads_to)
        self._request.of(operation).observe(first_token_s + finish.decode_s, leads_to)

    def answered(self, operation: GeneratingOperation, finish: Finish, num_tokens: int) -> None:
        """Records length and pace of a finished sequence."""
        self._generated_lengths.of(operation).observe(num_tokens)
        if num_tokens > 1:
            pace_s = finish.decode_s / (num_tokens - 1)
            self._per_token.of(operation).observe(pace_s, tracing.exemplar(tracing.current()))

    def abandoned(
        self, operation: GeneratingOperation, num_sequences: int, *, failed: bool
    ) -> None:
        """Counts sequences of a call that failed, or that its caller gave up."""
        label = "error" if failed else "cancelled"
        self._finished.of(operation, label).inc(num_sequences)

    @contextmanager
    def count_rejections(self) -> Iterator[None]:
        """Counts the calls that are refused for want of room while the block runs."""
        try:
            yield
        except errors.Overloaded as error:
            self._refusals.of(_RESOURCES[error.metadata["resource"]]).inc()
            raise
        except tuple(_REFUSALS) as error:
            self._refusals.of(_REFUSALS[type(error)]).inc()
            raise

    def scores_sent(self, encoding: str, num_bytes: int) -> None:
        """Counts bytes of scores, see `ENCODINGS`."""
        self._logits_bytes.of(encoding).inc(num_bytes)
