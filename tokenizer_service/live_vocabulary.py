"""The vocabulary that serves now, and how it becomes the next one.

Readers take `current` and keep it for as long as they compute. One writer at a time
goes through: plan, build the next tokenizer, make the change durable, swap the
reference, wake the watchers. A caller that goes away in the middle changes nothing
about that order.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rpc.errors import (
    InvalidField,
    RevisionConflict,
    ServiceError,
    VocabularyBehind,
    VocabularyMismatch,
)
from tokenizer_service.archive import Archive, check_same
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.store import Call, Store, StoredRevision
from tokenizer_service.tokenizer import Tokenizer
from vocabulary import BrokenChainError, Change, Link, Reference

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a changing call would do.

    Attributes:
        change: the change; an empty one makes no revision.
        respond: builds the reply, given the state after the change.
    """

    change: Change
    respond: Callable[[Reference], bytes]


Plan = Callable[[Tokenizer], Outcome]


@dataclass(frozen=True, slots=True)
class Extension:
    """What importing an archive did.

    Attributes:
        newest: the newest state.
        num_revisions: revisions that were new.
        num_replies: replies that were new.
    """

    newest: Reference
    num_revisions: int
    num_replies: int


class LiveVocabulary:
    """Owned by the event loop; the store has a thread of its own."""

    def __init__(self, base: Tokenizer, store: Store, metrics: TokenizerMetrics) -> None:
        """Replays the store.

        Args:
            base: revision 0.
            store: its log.
            metrics: where revisions and changes are recorded.

        Raises:
            BrokenChainError: the store was damaged or tampered with.
            StoreUnavailable: the store failed.
        """
        self._base = base
        self._store = store
        self._metrics = metrics
        self._history: list[StoredRevision] = []
        self._current = base
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vocabulary")
        self._tasks: set[asyncio.Task[Any]] = set()
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
        """Returns how many ids a request may use: those of the revision that it names.

        Raises:
            VocabularyMismatch: the request's vocabulary is another one.
            VocabularyBehind: the request's revision is newer than this replica's.
        """
        newest = self._current.reference
        if request is None:
            return newest.size
        if request.tokenizer_id != newest.tokenizer_id:
            raise _mismatch(request, newest)
        if request.revision > newest.revision:
            raise VocabularyBehind(
                request_revision=request.revision, server_revision=newest.revision
            )
        known = self.at(request.revision)
        if request.fingerprint != known.fingerprint:
            raise _mismatch(request, newest)
        return known.size

    def require(self, min_revision: int | None) -> Tokenizer:
        """Returns the current tokenizer if it is new enough.

        Raises:
            VocabularyBehind: it is not.
        """
        newest = self._current.reference.revision
        if min_revision is not None and min_revision > newest:
            raise VocabularyBehind(request_revision=min_revision, server_revision=newest)
        return self._current

    async def wait_beyond(self, revision: int, timeout_s: float) -> bool:
        """Waits until there is a revision after `revision`; False when there is none in time."""
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
        tokenizer = self._current
        _check_newest(tokenizer, expected_revision)

        def compute() -> bytes:
            outcome = plan(tokenizer)
            after = tokenizer.reference
            if outcome.change != Change():
                after = tokenizer.grown(outcome.change).reference
            return outcome.respond(after)

        return await self._in_thread(compute)

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
            StoreUnavailable: the store failed; nothing was changed.
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
        """Runs work that reads the store, in the thread of the store."""
        return await self._in_thread(partial(work, self._store))

    async def close(self) -> None:
        """Finishes changes that have begun and closes the store."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._in_thread(self._store.close)
        self._thread.shutdown()

    async def _to_the_end(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs work that a caller who goes away does not stop.

        Between COMMIT and the swap nobody may leave: the change exists by then.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _counted(self, call: Call, plan: Plan, expected_revision: int | None) -> bytes:
        try:
            return await self._change(call, plan, expected_revision)
        except RevisionConflict:
            self._metrics.change("conflict")
            raise
        except ServiceError:
            self._metrics.change("rejected")
            raise

    async def _change(self, call: Call, plan: Plan, expected_revision: int | None) -> bytes:
        async with self._writing:
            if (reply := await self._in_thread(lambda: self._store.reply(call))) is not None:
                await self._catch_up()
                return reply
            await self._catch_up()
            before = self._current
            _check_newest(before, expected_revision)
            return await self._write(call, before, plan)

    async def _write(self, call: Call, before: Tokenizer, plan: Plan) -> bytes:
        def build() -> tuple[Outcome, Tokenizer]:
            outcome = plan(before)
            return outcome, before if outcome.change == Change() else before.grown(outcome.change)

        outcome, after = await self._in_thread(build)
        response = outcome.respond(after.reference)
        link = None
        if after is not before:
            link = Link(before.reference.fingerprint, outcome.change, after.reference)
        written = await self._in_thread(lambda: self._store.append(link, call, response))
        if link is not None:
            self._serve(after, [StoredRevision(link, written)])
            self._metrics.change("applied")
        return response

    async def _extend(self, archive: Archive) -> Extension:
        async with self._writing:
            await self._catch_up()
            new = []
            for stored in archive.revisions:
                if (revision := stored.link.vocabulary.revision) <= len(self._history):
                    check_same(stored.link.vocabulary, self.at(revision))
                else:
                    new.append(stored)
            try:
                after, _ = await self._in_thread(partial(follow, self._current, new))
            except BrokenChainError as error:
                raise InvalidField("data", str(error)) from None
            num_replies = await self._in_thread(lambda: self._store.extend(new, archive.replies))
            self._serve(after, new)
            return Extension(after.reference, len(new), num_replies)

    async def _catch_up(self) -> None:
        """Serves revisions that are in the store although writing them seemed to fail."""
        before = self._current
        stored = await self._in_thread(lambda: self._store.revisions(before.reference.revision))
        if stored:
            self._serve(*await self._in_thread(partial(follow, before, stored)))

    def _serve(self, tokenizer: Tokenizer, stored: Sequence[StoredRevision]) -> None:
        self._history.extend(stored)
        self._current = tokenizer
        self._metrics.serving(tokenizer.reference)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def follow(
    tokenizer: Tokenizer, stored: Sequence[StoredRevision]
) -> tuple[Tokenizer, Sequence[StoredRevision]]:
    """Applies stored revisions and checks that they lead where they say.

    Returns:
        The tokenizer after them, and the revisions.

    Raises:
        BrokenChainError: they do not.
    """
    if not stored:
        return tokenizer, stored
    grown = tokenizer.grown(*(revision.link.change for revision in stored))
    if grown.reference != stored[-1].link.vocabulary:
        raise BrokenChainError(grown.reference.revision, "it is of another chain")
    return grown, stored


def _check_newest(tokenizer: Tokenizer, expected_revision: int | None) -> None:
    newest = tokenizer.reference.revision
    if expected_revision is not None and expected_revision != newest:
        raise RevisionConflict(expected=expected_revision, current=newest)


def _mismatch(request: Reference, server: Reference) -> VocabularyMismatch:
    return VocabularyMismatch(
        request_tokenizer_id=request.tokenizer_id,
        request_revision=request.revision,
        request_fingerprint=request.fingerprint,
        server_tokenizer_id=server.tokenizer_id,
        server_revision=server.revision,
        server_fingerprint=server.fingerprint,
    )
