"""The front's end of the engine: commands out, answers in, and what happens when it is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import structlog

from model_service.front.engine_client.call import Call
from model_service.front.engine_client.calls import Calls
from model_service.front.engine_client.process import STOP_GRACE_S, EngineProcess
from model_service.front.metrics import ModelMetrics
from model_service.protocol import (
    Cancel,
    Command,
    EngineInfo,
    EngineSettings,
    GraphStatus,
    Load,
    LoadFailed,
    LoadProgress,
    Message,
    Ping,
    Ready,
    Report,
    Request,
    Response,
    SequenceTokens,
)
from rpc import errors

WATCH_INTERVAL_S = 0.25

# What was measured is not believed when the watch looks later than this.
MOST_LATE_S = 1.0

# A long prompt of a large model, on processors that others use as well, is one step of minutes. An
# engine that computes has so many times the time of one that does nothing.
PATIENCE_WITH_WORK = 20

R = TypeVar("R", bound=Response)

log = structlog.stdlib.get_logger("model_service.front.engine_client.client")


class LoadError(Exception):
    """The model cannot be served. The message is for the operator, with the remedy."""


class EngineClient:
    """An engine as the front knows it. Used by the event loop only.

    A message of `model_service.protocol` is sent as it is, by `stream` when it is
    answered row by row, by `ask` when it has one answer, and by `tell` when no answer
    is waited for.

    Attributes:
        load: how full the engine is.
        graphs: whether its steps run compiled.
        lost: set when the engine is gone; `lost_reason` then says why.
    """

    def __init__(
        self,
        process: EngineProcess,
        metrics: ModelMetrics,
        *,
        max_running_sequences: int,
        max_waiting_sequences: int,
        quota_sequences: int = 0,
        buffer_bytes: int,
        stream_stall_timeout_s: float,
        engine_stall_timeout_s: float,
    ) -> None:
        """Wraps a process that has not been started.

        Args:
            process: the engine's process.
            metrics: where steps and ends of sequences are recorded.
            max_running_sequences: rows that run at once.
            max_waiting_sequences: rows admitted beyond that.
            quota_sequences: rows of one caller; 0 means no limit of its own.
            buffer_bytes: rows of logits kept for a call that does not take them.
            stream_stall_timeout_s: time that events may wait to be taken.
            engine_stall_timeout_s: time without a report, with calls to answer or after it was
                asked for a sign of life, after which the engine counts as lost, unless it
                computes.
        """
        self.load = Load()
        self.graphs = GraphStatus()
        self.lost = asyncio.Event()
        self.lost_reason = ""
        self._process = process
        self._metrics = metrics
        self._stream_stall_timeout_s = stream_stall_timeout_s
        self._engine_stall_timeout_s = engine_stall_timeout_s
        metrics.engine.watch_process(lambda: self.pid)
        self._calls = Calls(
            process.ring,
            max_running_sequences=max_running_sequences,
            max_waiting_sequences=max_waiting_sequences,
            quota_sequences=quota_sequences,
            buffer_bytes=buffer_bytes,
            cancel=lambda request_id: process.post(Cancel(request_id)),
        )
        self._heard_at = 0.0
        self._worked_at = 0.0  # when it was last seen to have used the processor
        self._used_s = 0.0
        self._pinged_at: float | None = None  # since when a sign of life is waited for
        self._info: EngineInfo | None = None
        self._ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._watcher: asyncio.Task[None] | None = None

    # --- The engine's life ----------------------------------------------------------------------

    async def start(self, settings: EngineSettings) -> EngineInfo:
        """Starts the engine and waits until the model is loaded.

        Raises:
            LoadError: the model cannot be loaded, or the process ended.
        """
        await self._process.start(settings, self._on_message)
        self._watcher = asyncio.create_task(self._watch())
        return await self._ready

    @property
    def info(self) -> EngineInfo:
        """What the engine knows about the model.

        Raises:
            Loading: the model is not loaded yet.
        """
        if self._info is None:
            raise errors.Loading
        return self._info

    @property
    def pid(self) -> int | None:
        """Process id of the engine, once started."""
        return self._process.pid

    @property
    def num_unfinished_rows(self) -> int:
        """Rows that run or wait, by the permits they hold."""
        return self._calls.num_unfinished_rows

    async def stop(self) -> None:
        """Stops the engine; calls that are left fail."""
        if self._watcher is not None:
            self._watcher.cancel()
        self._calls.fail_all(errors.Draining())
        listens = self._info is not None and not self.lost.is_set()
        await self._process.stop(STOP_GRACE_S if listens else 0)

    # --- Calls ----------------------------------------------------------------------------------

    def check_room(self) -> None:
        """Checks that there is room for the call that this code runs for, before it is read.

        Raises:
            QuotaExceeded, Overloaded: there is none.
        """
        self._calls.check_room()

    @asynccontextmanager
    async def stream(self, request: Request[SequenceTokens]) -> AsyncIterator[Call]:
        """Runs sequences while the context is open; leaving it early cancels the call.

        Args:
            request: what to run. One object begins one call.

        Raises:
            Overloaded: no permits are left.
            EngineLost: the engine is gone.
        """
        with self._open(request) as call:
            yield call

    async def ask(self, request: Request[R], *, undo: Iterable[Command] = ()) -> R:
        """Sends a request that has one answer, and waits for it.

        Args:
            request: what to do. One object begins one call.
            undo: what is sent when the call is left before it was answered, which
                cancels it.

        Raises:
            Overloaded: no permits are left.
            EngineLost: the engine is gone.
            ServiceError: the engine refused it.
        """
        with self._open(request) as call:
            try:
                return cast(R, await call.answer())
            finally:
                if not call.settled:
                    for command in undo:
                        self.tell(command)

    def tell(self, command: Command) -> None:
        """Sends a command without waiting for its answer, if it has one."""
        self._process.post(command)

    @contextmanager
    def _open(self, request: Request[Any]) -> Iterator[Call]:
        if self.lost.is_set():
            raise errors.EngineLost
        if not self._calls:
            self._heard_at = time.monotonic()  # it was idle: its silence starts now
        with self._calls.open(request) as call:
            self._process.post(cast(Command, request))
            yield call

    # --- Events ---------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Report):
            self._on_report(message)
        elif isinstance(message, Ready):
            self._info = message.info
            self._metrics.engine.loaded(message.info)
            self._metrics.generations.set_base_size(message.info.vocabulary_size)
            self._ready.set_result(message.info)
        elif isinstance(message, LoadProgress):
            self._metrics.engine.loading(message.stage, message.ratio)
            log.info("loading", stage=message.stage, ratio=round(message.ratio, 3))
        elif isinstance(message, GraphStatus):
            self.graphs = message
            self._metrics.engine.graphs_changed(message)
            log.info("decode_graphs", state=message.state, reason=message.reason)
        elif isinstance(message, LoadFailed) and not self._ready.done():
            self._ready.set_exception(LoadError(message.reason))

    def _on_report(self, report: Report) -> None:
        self._heard_at, self._pinged_at = time.monotonic(), None
        generated: list[int] = []
        for event in report.events:
            if isinstance(event, SequenceTokens):
                generated += event.token_ids
                self._record(event)
            self._calls.deliver(event)
        if generated:
            self._metrics.generations.generated(generated)
        self._process.rows_taken()
        self.load = report.load
        self._metrics.engine.filled(report.load)
        if report.stats is not None:
            self._metrics.engine.stepped(report.stats)

    def _record(self, event: SequenceTokens) -> None:
        metrics = self._metrics.generations
        call = self._calls.find(event.request_id)
        if call is None or call.ended:
            return  # its sequences are counted when its handler leaves
        gap_s = call.grown(event.row, self._heard_at)
        if gap_s is not None:
            metrics.waited(call.operation, gap_s, call.trace)
        if event.finish is not None:
            metrics.finished(call.operation, event.finish, call.trace)

    # --- Watching -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Ends calls that are not read, and notices when the engine is gone or hangs."""
        ended, looked_at = self._process.ended, time.monotonic()
        while not ended.done():
            await asyncio.wait([ended], timeout=WATCH_INTERVAL_S)
            now = time.monotonic()
            if (used_s := self._process.processor_s) != self._used_s:
                self._used_s, self._worked_at = used_s, now
            if now - looked_at < MOST_LATE_S:  # else this process was held, and read no report
                self._calls.fail_unread(now, self._stream_stall_timeout_s)
                if self._is_silent(now):
                    self._on_lost("The engine does not answer.")
                    return
            looked_at = now
        self._on_lost(ended.result())

    def _is_silent(self, now: float) -> bool:
        """Says whether the engine hangs. One that has nothing to report is asked for a sign."""
        since = self._heard_at if self._calls else self._pinged_at
        if since is not None:
            idle_s = now - max(since, self._worked_at)
            most_s = self._engine_stall_timeout_s
            return idle_s > most_s or now - since > PATIENCE_WITH_WORK * most_s
        if self._info is not None and now - self._heard_at > self._engine_stall_timeout_s / 2:
            self._pinged_at = now
            self.tell(Ping())
        return False

    def _on_lost(self, reason: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(LoadError(reason))
        log.error("engine_lost", reason=reason)
        self.lost_reason = reason
        self.lost.set()
        self._calls.fail_all(errors.EngineLost())
