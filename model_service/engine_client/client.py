"""The front's end of the engine: commands out, answers in, and what happens when it is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import cast

import structlog

from model_service.engine_client.call import Call
from model_service.engine_client.call_table import CallTable
from model_service.engine_client.process import STOP_GRACE_S, EngineProcess
from model_service.generation import GenerationConfig, ScoreSelection
from model_service.messages import (
    Cancel,
    CloseSession,
    ContinueSession,
    DescribeSession,
    EngineInfo,
    EngineSettings,
    Event,
    FlushPrefixCache,
    ForkSession,
    Generate,
    GenerateSession,
    GraphStatus,
    GrowVocabulary,
    Load,
    LoadFailed,
    LoadProgress,
    Message,
    NewRow,
    OpenSession,
    PrefixCacheFlushed,
    Ready,
    RebindSession,
    Report,
    SelectSessionRows,
    SequenceSpec,
    SequenceTokens,
    SessionAnswer,
    SessionDescription,
    SessionForked,
    SpellTokens,
    StepRow,
    StepSession,
    TruncateSession,
    VocabularyGrown,
)
from model_service.metrics import ModelMetrics
from rpc import errors

WATCH_INTERVAL_S = 0.25

log = structlog.stdlib.get_logger("model_service.engine_client.client")


class LoadError(Exception):
    """The model cannot be served. The message is for the operator, with the way out."""


class EngineClient:
    """Calls to the engine. Used by the event loop only.

    Leaving a call early tells the engine to cancel it.

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
            buffer_bytes: rows of logits kept for a call that does not take them.
            stream_stall_timeout_s: time that events may wait to be taken.
            engine_stall_timeout_s: time without a report, with calls to answer,
                after which the engine counts as lost.
        """
        self.load = Load()
        self.graphs = GraphStatus()
        self.lost = asyncio.Event()
        self.lost_reason = ""
        self._process = process
        self._metrics = metrics
        self._stream_stall_timeout_s = stream_stall_timeout_s
        self._engine_stall_timeout_s = engine_stall_timeout_s
        self._calls = CallTable(
            process.ring,
            max_running_sequences=max_running_sequences,
            max_waiting_sequences=max_waiting_sequences,
            buffer_bytes=buffer_bytes,
            cancel=lambda request_id: process.post(Cancel(request_id)),
        )
        self._last_report = 0.0
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

    @asynccontextmanager
    async def generate(
        self,
        sequences: list[SequenceSpec],
        config: GenerationConfig,
        *,
        revision: int,
        selection: ScoreSelection | None = None,
        prompt_selection: ScoreSelection | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        num_rows: int | None = None,
        sequences_per_prompt: int = 1,
    ) -> AsyncIterator[Call]:
        """Runs sequences to their end while the context is open.

        Args:
            sequences: the rows.
            config: how tokens are chosen.
            revision: vocabulary revision of the ids.
            selection: what to return about each generated token.
            prompt_selection: what to return about each prompt token.
            priority: lower goes first.
            cache_salt: prompts of equal salts may reuse each other's KV cache; None: nobody's.
            num_rows: rows of a step that the sequences take; None means one each.
            sequences_per_prompt: neighbors among the rows that have the same prompt.

        Yields:
            The call, to be iterated for the tokens of each step.

        Raises:
            Overloaded: there are no permits left.
            EngineLost: the engine is gone.
        """
        with self._call(len(sequences), num_rows) as call:
            self._process.post(
                Generate(
                    request_id=call.request_id,
                    sequences=sequences,
                    config=config,
                    revision=revision,
                    selection=selection,
                    prompt_selection=prompt_selection,
                    priority=priority,
                    cache_salt=cache_salt,
                    sequences_per_prompt=sequences_per_prompt,
                )
            )
            yield call

    @asynccontextmanager
    async def generate_session(
        self,
        session_id: str,
        sequences: list[SequenceSpec],
        config: GenerationConfig,
        *,
        revision: int,
        max_length: int,
        selection: ScoreSelection | None = None,
        prompt_selection: ScoreSelection | None = None,
        cache_salt: str | None = None,
    ) -> AsyncIterator[Call]:
        """Runs sequences as rows of a new session. A call that is left early leaves none behind.

        Args:
            session_id: the session's name.
            sequences: the rows.
            config: how tokens are chosen, also afterwards.
            revision: vocabulary revision of the ids.
            max_length: tokens of KV cache reserved per row.
            selection: what to return about each generated token.
            prompt_selection: what to return about each prompt token.
            cache_salt: as of `generate`.

        Yields:
            The call, as of `generate`.

        Raises:
            Overloaded: there are no permits left, or no room for the session now.
            KVCacheExceeded: there will never be.
        """
        with self._call(len(sequences)) as call:
            self._process.post(
                GenerateSession(
                    request_id=call.request_id,
                    session_id=session_id,
                    sequences=sequences,
                    config=config,
                    revision=revision,
                    max_length=max_length,
                    selection=selection,
                    prompt_selection=prompt_selection,
                    cache_salt=cache_salt,
                )
            )
            yield call

    @asynccontextmanager
    async def continue_session(
        self,
        session_id: str,
        config: GenerationConfig,
        max_new_tokens: list[int],
        *,
        selection: ScoreSelection | None = None,
    ) -> AsyncIterator[Call]:
        """Runs the rows of a session to their ends. A call that is left early is undone.

        Args:
            session_id: the session.
            config: how tokens are chosen in this call.
            max_new_tokens: most new tokens of each row.
            selection: what to return about each generated token.

        Yields:
            The call, as of `generate`.

        Raises:
            Overloaded: there are no permits left.
            ServiceError: the engine refused it.
        """
        with self._call(len(max_new_tokens)) as call:
            self._process.post(
                ContinueSession(call.request_id, session_id, config, max_new_tokens, selection)
            )
            yield call

    async def open_session(
        self,
        session_id: str,
        sequences: list[SequenceSpec],
        config: GenerationConfig,
        *,
        revision: int,
        max_length: int,
        selection: ScoreSelection,
        cache_salt: str | None = None,
        sample: bool = False,
        append: bool = False,
    ) -> SessionAnswer:
        """Prefills rows and keeps them. A call that is left early leaves no session behind.

        Raises:
            ServiceError: the engine refused it.
        """
        with self._call(len(sequences)) as call:
            self._process.post(
                OpenSession(
                    request_id=call.request_id,
                    session_id=session_id,
                    sequences=sequences,
                    config=config,
                    revision=revision,
                    max_length=max_length,
                    selection=selection,
                    cache_salt=cache_salt,
                    sample=sample,
                    append=append,
                )
            )
            try:
                return cast(SessionAnswer, await call.answer())
            finally:
                if not call.settled:
                    self.forget_session(session_id)

    async def step_session(
        self,
        session_id: str,
        rows: list[StepRow],
        selection: ScoreSelection,
        *,
        sample: bool,
        append: bool,
        look_ahead: bool = False,
    ) -> SessionAnswer:
        """Appends tokens to rows and returns the distributions after them.

        A call that is left early is undone, unless it has been answered already.

        Raises:
            PositionConflict: a row is elsewhere than expected; nothing happened.
            ServiceError: the engine refused it.
        """
        with self._call(len(rows)) as call:
            self._process.post(
                StepSession(
                    request_id=call.request_id,
                    session_id=session_id,
                    rows=rows,
                    selection=selection,
                    sample=sample,
                    append=append,
                    look_ahead=look_ahead,
                )
            )
            return cast(SessionAnswer, await call.answer())

    async def truncate_session(self, session_id: str, lengths: list[int]) -> SessionAnswer:
        """Forgets the tokens of each row from a length on.

        Raises:
            InvalidField: a row is shorter than that; nothing happened.
        """
        with self._call(0) as call:
            self._process.post(TruncateSession(call.request_id, session_id, lengths))
            return cast(SessionAnswer, await call.answer())

    async def fork_session(
        self, session_id: str, fork_ids: list[str], rows: list[int]
    ) -> SessionForked:
        """Copies rows to new sessions. A call that is left early leaves none of them behind.

        Raises:
            Overloaded: there is no room for them now.
            KVCacheExceeded: there will never be.
        """
        with self._call(0) as call:
            self._process.post(ForkSession(call.request_id, session_id, fork_ids, rows))
            try:
                return cast(SessionForked, await call.answer())
            finally:
                if not call.settled:
                    for fork_id in fork_ids:
                        self.forget_session(fork_id)

    async def select_session_rows(self, session_id: str, rows: list[int]) -> SessionAnswer:
        """Replaces a session's rows by a selection of them.

        Raises:
            Overloaded: there is no room for so many rows now.
            KVCacheExceeded: there will never be.
        """
        with self._call(0) as call:
            self._process.post(SelectSessionRows(call.request_id, session_id, rows))
            return cast(SessionAnswer, await call.answer())

    async def rebind_session(self, session_id: str, revision: int) -> SessionAnswer:
        """Moves a session's rows to a newer revision of the vocabulary, which is there."""
        with self._call(0) as call:
            self._process.post(RebindSession(call.request_id, session_id, revision))
            return cast(SessionAnswer, await call.answer())

    async def describe_session(self, session_id: str) -> SessionDescription:
        """Returns a session's tokens."""
        with self._call(0) as call:
            self._process.post(DescribeSession(call.request_id, session_id))
            return cast(SessionDescription, await call.answer())

    async def close_session(self, session_id: str) -> SessionDescription:
        """Frees a session and returns the tokens it held."""
        with self._call(0) as call:
            self._process.post(CloseSession(call.request_id, session_id))
            return cast(SessionDescription, await call.answer())

    def forget_session(self, session_id: str) -> None:
        """Frees a session without waiting for the answer."""
        self._process.post(CloseSession(self._calls.next_request_id(), session_id))

    def spell_tokens(self, token_bytes: Sequence[bytes]) -> None:
        """Says which bytes the ids of revision 0 stand for, for all calls to come."""
        self._process.post(SpellTokens(list(token_bytes)))

    async def grow_vocabulary(self, revision: int, rows: Sequence[NewRow]) -> VocabularyGrown:
        """Appends a revision. Takes effect between two steps.

        Args:
            revision: number of the new revision.
            rows: its new ids, in order.
        """
        with self._call(0) as call:
            self._process.post(GrowVocabulary(call.request_id, revision, list(rows)))
            return cast(VocabularyGrown, await call.answer())

    async def flush_prefix_cache(self) -> int:
        """Drops the KV cache kept for reuse, and returns the number of tokens dropped."""
        with self._call(0) as call:
            self._process.post(FlushPrefixCache(call.request_id))
            return cast(PrefixCacheFlushed, await call.answer()).token_count

    def _call(self, num_rows: int, num_permits: int | None = None) -> AbstractContextManager[Call]:
        if self.lost.is_set():
            raise errors.EngineLost
        if not self._calls:
            self._last_report = time.monotonic()  # it was idle: its silence starts now
        return self._calls.open(num_rows, num_permits)

    # --- Events ---------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Report):
            self._on_report(message)
        elif isinstance(message, Ready):
            self._info = message.info
            self._metrics.loaded(message.info)
            self._ready.set_result(message.info)
        elif isinstance(message, LoadProgress):
            self._metrics.loading(message.stage, message.ratio)
            log.info("loading", stage=message.stage, ratio=round(message.ratio, 3))
        elif isinstance(message, GraphStatus):
            self.graphs = message
            self._metrics.graphs_changed(message)
            log.info("decode_graphs", state=message.state, reason=message.reason)
        elif isinstance(message, LoadFailed) and not self._ready.done():
            self._ready.set_exception(LoadError(message.reason))

    def _on_report(self, report: Report) -> None:
        self._last_report = time.monotonic()
        for event in report.events:
            self._record(event)
            self._calls.deliver(event)
        self._process.rows_taken()
        self.load = report.load
        self._metrics.filled(report.load)
        if report.stats is not None:
            self._metrics.stepped(report.stats)

    def _record(self, event: Event) -> None:
        if isinstance(event, SequenceTokens):
            self._metrics.generated(len(event.token_ids))
            if event.finish is not None:
                self._metrics.sequence_finished(event.finish)

    # --- Watching -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Ends calls that nobody reads, and notices when the engine is gone or hangs."""
        ended = self._process.ended
        while not ended.done():
            await asyncio.wait([ended], timeout=WATCH_INTERVAL_S)
            now = time.monotonic()
            self._calls.fail_unread(now, self._stream_stall_timeout_s)
            if self._calls and now - self._last_report > self._engine_stall_timeout_s:
                self._on_lost("The engine does not answer.")
                return
        self._on_lost(ended.result())

    def _on_lost(self, reason: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(LoadError(reason))
        log.error("engine_lost", reason=reason)
        self.lost_reason = reason
        self.lost.set()
        self._calls.fail_all(errors.EngineLost())
