"""The vocabulary that serves now, and how it becomes the next one.

Readers take `current` and keep it for as long as they compute. One writer at a time,
of all replicas, goes through: follow what others wrote, plan, build the next
tokenizer, make the change durable, swap the reference, wake the watchers. A caller
that goes away in the middle changes nothing about that order.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import structlog

from rpc.errors import (
    RevisionConflict,
    ServiceError,
    StoreUnavailable,
    VocabularyBehind,
)
from rpc.tasks import LastingTasks
from tokenizer_service.growth import revision_writer
from tokenizer_service.growth.archive import Archive
from tokenizer_service.growth.revision_writer import Extension, Plan, check_newest, follow
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.store import Call, Store, StoredRevision
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import BrokenChainError, Reference
from wire.vocabulary import find_state

_T = TypeVar("_T")

# Share of the tokens that may be added below which an operator is warned.
_FEW_LEFT = 0.1

_log = structlog.stdlib.get_logger(__name__)


class LiveVocabulary:
    """Owned by the event loop. The store has a thread that writes and one that reads."""

    def __init__(
        self,
        base: Tokenizer,
        store: Store,
        metrics: TokenizerMetrics,
        *,
        max_added_tokens: int = 8192,
        catch_up_timeout_s: float = 0.5,
    ) -> None:
        """Replays the store, which takes a while.

        Args:
            base: revision 0.
            store: its log.
            metrics: where revisions and changes are recorded.
            max_added_tokens: most tokens that all revisions may add.
            catch_up_timeout_s: how long `reach` may take.

        Raises:
            BrokenChainError: the store was damaged or tampered with.
            StoreUnavailable: the store failed.
        """
        self._base = base
        self._store = store
        self._metrics = metrics
        self._max_added_tokens = max_added_tokens
        self._catch_up_timeout_s = catch_up_timeout_s
        self._history: list[StoredRevision] = []
        self._current = base
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="vocabulary-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="vocabulary-reader")
        self._changes = LastingTasks()
        self._looking: asyncio.Task[None] | None = None
        self._serve(*follow(base, store.verified()))

    @property
    def current(self) -> Tokenizer:
        """The newest revision."""
        return self._current

    @property
    def base_size(self) -> int:
        """Number of ids at revision 0."""
        return self._base.size

    @property
    def history(self) -> Sequence[StoredRevision]:
        """Revisions 1 and later, oldest first. Only ever appended to."""
        return self._history

    def at(self, revision: int) -> Reference:
        """Returns the state at a revision that is not newer than the current one."""
        if revision == 0:
            return self._base.reference
        return self._history[revision - 1].link.vocabulary

    def size_for(self, request: Reference | None) -> int:
        """Returns how many ids a request may use: the size of the revision that it names.

        Raises:
            InvalidField: its revision is negative, or its size is not the size of the revision.
            VocabularyMismatch: the request's vocabulary is another one.
            VocabularyBehind: the request's revision is newer than this replica's.
        """
        newest = self._current.reference
        if request is None:
            return newest.size
        state = find_state(request, newest, self.at)
        if state is None:
            raise VocabularyBehind(
                request_revision=request.revision, server_revision=newest.revision
            )
        return state.size

    def require(self, min_revision: int | None) -> Tokenizer:
        """Returns the current tokenizer if it is new enough.

        Raises:
            VocabularyBehind: it is not.
        """
        newest = self._current.reference.revision
        if min_revision is not None and min_revision > newest:
            raise VocabularyBehind(request_revision=min_revision, server_revision=newest)
        return self._current

    async def reach(self, revision: int | None) -> None:
        """Looks into the store, for a bounded time, if a revision is not here yet.

        `require` and `size_for` then say whether it is here.
        """
        if revision is None or revision <= self._current.reference.revision:
            return
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(self._catch_up_timeout_s):
                if self._looking is not None:  # it may have begun too early to see it
                    await asyncio.shield(self._looking)
                if revision > self._current.reference.revision:
                    await self.catch_up()

    async def catch_up(self) -> None:
        """Serves what others have written. Calls at the same time share one look.

        Raises:
            BrokenChainError: it does not continue what is served.
            StoreUnavailable: the store failed.
        """
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    async def wait_beyond(self, revision: int, timeout_s: float) -> bool:
        """Waits for a revision after `revision`; returns False if none comes in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._current.reference.revision <= revision:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def preview(self, plan: Plan, *, expected_revision: int | None) -> bytes:
        """Returns the reply a change would get, and changes nothing.

        Raises:
            RevisionConflict: there is a newer revision than expected.
        """
        await self.reach(expected_revision)
        tokenizer = self._current
        check_newest(tokenizer, expected_revision)

        def compute() -> bytes:
            outcome = plan(tokenizer)
            return outcome.respond(outcome.after.reference)

        # Reads no store, and may take a second: neither writers nor readers wait for it.
        return await asyncio.to_thread(compute)

    async def change(
        self,
        call: Call,
        plan: Plan,
        *,
        expected_revision: int | None,
    ) -> bytes:
        """Makes a change durable and visible, and returns its reply.

        A call that was answered before gets the same bytes and changes nothing.

        Args:
            call: identifies the call.
            plan: works out the change against a tokenizer; runs in a thread.
            expected_revision: the newest revision the caller knows, None for any.

        Raises:
            IdempotencyKeyReused: the key was used for another request.
            RevisionConflict: there is a newer revision than expected.
            StoreUnavailable: the store failed; nothing was changed, or the same call
                finds that it was.
        """
        return await self._to_the_end(self._counted(call, plan, expected_revision))

    async def extend(self, archive: Archive) -> Extension:
        """Makes what continues the chain durable and visible: all of it or nothing.

        Raises:
            InvalidField: the revisions cannot be served.
            StoreUnavailable: the store failed; nothing was changed.
            VocabularyMismatch: the archive is of another chain.
        """
        return await self._to_the_end(self._extend(archive))

    async def read(self, work: Callable[[Store], _T]) -> _T:
        """Runs work that reads the store, in the thread that reads."""
        return await _run(self._reader, partial(work, self._store))

    async def close(self) -> None:
        """Finishes what has begun and closes the store."""
        await self._changes.finish()
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)
        await _run(self._writer, self._store.close)
        self._writer.shutdown()
        self._reader.shutdown()

    async def _to_the_end(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs work that goes on when its call is cancelled.

        Between COMMIT and the swap it must not stop: the change exists by then.

        Raises:
            StoreUnavailable: the store is damaged, or whatever the work raises.
        """
        try:
            return await self._changes.to_the_end(work)
        except BrokenChainError as error:
            _log.error("chain_broken", revision=error.revision, reason=str(error))
            raise StoreUnavailable("damaged") from None

    async def _counted(self, call: Call, plan: Plan, expected_revision: int | None) -> bytes:
        try:
            return await self._change(call, plan, expected_revision)
        except RevisionConflict:
            self._metrics.change("conflict")
            raise
        except ServiceError:
            self._metrics.change("rejected")
            raise

    async def _extend(self, archive: Archive) -> Extension:
        async with self._writing:
            extended = await _run(
                self._writer,
                partial(
                    revision_writer.extend, self._store, lambda: self._current, self.at, archive
                ),
            )
            self._serve(extended.tokenizer, extended.revisions)
        return extended

    async def _change(self, call: Call, plan: Plan, expected_revision: int | None) -> bytes:
        write = partial(
            revision_writer.write, self._store, lambda: self._current, call, plan, expected_revision
        )
        async with self._writing:
            try:
                written = await _run(self._writer, write)
            except StoreUnavailable:
                # Perhaps in the middle of COMMIT: the key tells whether it succeeded.
                written = await _run(self._writer, write)
            self._serve(written.tokenizer, written.revisions)
        if written.is_new:
            self._metrics.change("applied")
        return written.response

    async def _look(self) -> None:
        def look() -> tuple[Tokenizer, Sequence[StoredRevision]]:
            current = self._current
            return follow(current, self._store.revisions(current.reference.revision))

        self._serve(*await _run(self._reader, look))

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # every waiting call may be gone

    def _serve(self, tokenizer: Tokenizer, stored: Sequence[StoredRevision]) -> None:
        """Makes a tokenizer the current one, unless a newer one is.

        Args:
            tokenizer: the state to serve.
            stored: the revisions that led to it, from any served one on.
        """
        served = self._current.reference.revision
        newer = [one for one in stored if one.link.vocabulary.revision > served]
        if newer:
            self._history.extend(newer)
            self._current = tokenizer
            self._changed.set()
            self._changed = asyncio.Event()
        num_left = max(0, self._base.size + self._max_added_tokens - self._current.size)
        self._metrics.serving(self._current.reference, num_left=num_left)
        if newer and num_left <= _FEW_LEFT * self._max_added_tokens:
            _log.warning(
                "added_tokens_nearly_used_up",
                num_left=num_left,
                limit=self._max_added_tokens,
                remedy="Start with a larger --max-added-tokens: tokens are never removed.",
            )


async def _run(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
