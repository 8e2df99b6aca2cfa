"""What the service counts in addition to RPCs. Labels come from closed sets."""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rpc import logging
from rpc.metrics import build_info
from vocabulary import Reference

_T = TypeVar("_T")

Operation = Literal["encode", "decode", "chat"]
ChangeResult = Literal["applied", "rejected", "conflict"]

OPERATION_BUCKETS_S = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.5, 1.0),
)
TOKEN_BUCKETS = tuple(m * 10**e for e in range(6) for m in (1, 2, 5) if m * 10**e <= 200_000)
BATCH_BUCKETS = tuple(2**e for e in range(9))

_PREFIX = "lockstep_tokenizer_"
_LABELS = ("tokenizer", "operation")


class TokenizerMetrics:
    """Metrics of one server. The registry is passed in, so two servers do not collide."""

    def __init__(
        self,
        registry: CollectorRegistry,
        tokenizer_id: str,
        *,
        base_size: int = 0,
    ) -> None:
        """Declares every metric.

        Args:
            registry: where they are collected.
            tokenizer_id: value of the label `tokenizer`.
            base_size: number of ids at revision 0; those beyond it were added.
        """
        self._tokenizer_id = tokenizer_id
        self._base_size = base_size

        def counter(name: str, text: str, labels: tuple[str, ...] = _LABELS) -> Counter:
            return Counter(_PREFIX + name, text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(_PREFIX + name, text, ("tokenizer",), registry=registry)

        def histogram(
            name: str, text: str, buckets: Sequence[float], labels: tuple[str, ...] = _LABELS
        ) -> Histogram:
            return Histogram(_PREFIX + name, text, labels, buckets=buckets, registry=registry)

        self._tokens = counter("tokens_total", "Tokens encoded or decoded.")
        self._characters = counter("characters_total", "Characters encoded or decoded.")
        self._seconds = histogram(
            "operation_seconds",
            "Duration of one call's work, without waiting.",
            OPERATION_BUCKETS_S,
        )
        self._sequence_tokens = histogram("sequence_tokens", "Tokens per sequence.", TOKEN_BUCKETS)
        self._batch_size = histogram("batch_size", "Sequences per call.", BATCH_BUCKETS)
        self._queue = histogram(
            "queue_seconds", "Wait for a thread.", OPERATION_BUCKETS_S, ("tokenizer",)
        ).labels(tokenizer_id)
        self._size = gauge("vocab_size", "Number of ids.").labels(tokenizer_id)
        self._revision = gauge("vocab_revision", "Newest revision.").labels(tokenizer_id)
        self._added = gauge("added_tokens", "Tokens added by all revisions.").labels(tokenizer_id)
        self._left = gauge("added_tokens_left", "Tokens that may still be added.").labels(
            tokenizer_id
        )
        self._encoded = counter(
            "added_tokens_encoded_total",
            "Tokens encoded that revision 0 does not have.",
            ("tokenizer",),
        ).labels(tokenizer_id)
        self._loaded = gauge(
            "loaded_timestamp_seconds", "When the tokenizer was loaded, in Unix time."
        ).labels(tokenizer_id)
        self._changes = counter(
            "vocab_revisions_total",
            "Requested changes of the vocabulary, by result.",
            ("tokenizer", "result"),
        )
        self._store_seconds = histogram(
            "store_operation_seconds",
            "Duration of an operation of the store.",
            OPERATION_BUCKETS_S,
            ("operation", "result"),
        )
        for result in ("applied", "rejected", "conflict"):
            self._changes.labels(tokenizer_id, result)
        for operation in get_args(Operation):
            for metric in (self._tokens, self._characters, self._seconds):
                metric.labels(tokenizer_id, operation)
            for metric in (self._sequence_tokens, self._batch_size):
                metric.labels(tokenizer_id, operation)
        build_info(registry, f"{_PREFIX}build", "tokenizers", "grpcio")

    def loaded(self) -> None:
        """Marks the moment from which the tokenizer serves."""
        self._loaded.set(time.time())

    def serving(self, reference: Reference, *, num_left: int) -> None:
        """Records the revision that serves now, and how many tokens may still be added."""
        self._size.set(reference.size)
        self._revision.set(reference.revision)
        self._added.set(reference.size - self._base_size)
        self._left.set(num_left)

    def waited(self, seconds: float) -> None:
        """Records how long work waited for a thread."""
        self._queue.observe(seconds)

    def change(self, result: ChangeResult) -> None:
        """Counts a changing call."""
        self._changes.labels(self._tokenizer_id, result).inc()

    def store(self, operation: str, result: str, seconds: float) -> None:
        """Records an operation of the store."""
        self._store_seconds.labels(operation, result).observe(seconds)

    @contextmanager
    def timed(self, operation: Operation) -> Iterator[None]:
        """Times the block as the work of one call."""
        with self._seconds.labels(self._tokenizer_id, operation).time():
            yield

    def timed_pieces(
        self, operation: Operation, pieces: Generator[None, None, _T]
    ) -> Generator[None, None, _T]:
        """Times work that is done piece by piece, without what lies between the pieces."""
        seconds = 0.0
        try:
            while True:
                start = time.perf_counter()
                try:
                    next(pieces)
                except StopIteration as returned:
                    result: _T = returned.value
                    return result
                finally:
                    seconds += time.perf_counter() - start
                yield
        finally:
            self._seconds.labels(self._tokenizer_id, operation).observe(seconds)

    def encoded(self, rows: Iterable[Sequence[int]]) -> None:
        """Counts the tokens that revision 0 does not have."""
        base_size = self._base_size
        num_added = sum(
            sum(token_id >= base_size for token_id in row)
            for row in rows
            if row and max(row) >= base_size
        )
        if num_added:
            self._encoded.inc(num_added)

    def processed(
        self, operation: Operation, token_counts: Sequence[int], num_characters: int
    ) -> None:
        """Records what a call worked on, also for its line of the log.

        Args:
            operation: what was done.
            token_counts: tokens of each sequence.
            num_characters: of all texts together.
        """
        logging.count(tokens=sum(token_counts))
        labels = (self._tokenizer_id, operation)
        self._batch_size.labels(*labels).observe(len(token_counts))
        self._tokens.labels(*labels).inc(sum(token_counts))
        self._characters.labels(*labels).inc(num_characters)
        sequence_tokens = self._sequence_tokens.labels(*labels)
        for count in token_counts:
            sequence_tokens.observe(count)
