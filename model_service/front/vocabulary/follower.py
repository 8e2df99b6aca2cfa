"""Follows the vocabulary of a tokenizer service and grows the model with it.

Every change is checked against the chain before the engine sees it. A tokenizer
service whose chain is another one is never followed: the model is then not
served, or stays on the revisions that it has.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import (
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
    vocabulary_pb2,
)

from model_service.front.engine_client.client import EngineClient
from model_service.front.metrics import ModelMetrics
from model_service.front.vocabulary.following import Following
from model_service.front.vocabulary.service import (
    Backoff,
    ConflictError,
    TokenizerAddress,
    fetch_spelling,
)
from model_service.protocol import GrowVocabulary, NewRow, SpellTokens
from rpc.errors import ServiceError
from vocabulary import BrokenChainError, Change, Link, Reference, verify
from wire.vocabulary import read_change

CALL_TIMEOUT_S = 3.0
HEARTBEAT_S = 2
MISSED_HEARTBEATS = 3
NO_CHANGE = Change()

log = structlog.stdlib.get_logger("model_service.front.vocabulary.follower")


class Follower:
    """Keeps a vocabulary table, and the engine, in step with a tokenizer service.

    Attributes:
        caught_up: set once every revision that the service had at the first
            contact is applied, and for good: losing the service later does not
            keep this replica from serving what it has.
    """

    def __init__(
        self,
        address: TokenizerAddress,
        base: Reference | None,
        engine: EngineClient,
        metrics: ModelMetrics,
        following: Following,
        report_conflict: Callable[[bool], None],
        meanwhile: Reference | None = None,
    ) -> None:
        """Prepares to follow; `run` follows.

        Args:
            address: the tokenizer service.
            base: revision 0 as the checkpoint has it; None when the checkpoint
                has no tokenizer, and then the service's is trusted.
            engine: what grows.
            metrics: where growth is recorded.
            following: is kept up to date, with its table, which has no revision at first.
            report_conflict: makes health say whether another vocabulary is followed, so that no
                text that the service encodes can be taken here.
            meanwhile: revision 0 to serve when the first attempt fails; None to wait until the
                service has been followed.
        """
        self.caught_up = asyncio.Event()
        self._address = address
        self._base = base
        self._table = following.table
        self._engine = engine
        self._metrics = metrics
        self._following = following
        self._report_conflict = report_conflict
        self._meanwhile = meanwhile
        self._warned_of = ""  # why the service is not reached
        self._backoff = Backoff()
        self._first_revision: int | None = None  # the service's, at the first contact
        self._head: Reference | None = None  # the newest one verified, perhaps not yet applied
        self._applying: asyncio.Task[None] | None = None  # of the head

    async def run(self) -> None:
        """Follows until cancelled, through every loss of the connection."""
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                self._lose(
                    f"{error.code().name}: {(error.details() or '')[:200]}",
                    may_be_planned=error.code() is grpc.StatusCode.UNAVAILABLE,
                )
            except TimeoutError:
                self._lose("it is silent")
            except (OSError, ssl.SSLError) as error:
                self._lose(f"files of its connection cannot be used: {error}")
            except (ConflictError, BrokenChainError) as error:
                self._refuse(str(error), is_another=True)
            except (ValueError, ServiceError) as error:  # a change that this model cannot take
                self._refuse(str(error), is_another=False)
            else:
                self._lose("it ended the stream", may_be_planned=True)
            finally:
                self._connect(False)
            self._serve_meanwhile()
            await self._backoff.pause(self._table.wanted)

    def _lose(self, reason: str, *, may_be_planned: bool = False) -> None:
        """Notes why the service is not reached; says so once per reason.

        Connections end as planned, at their age or when the service stops: whether anything is
        wrong, the next attempt shows.
        """
        if self._following.connected and may_be_planned:
            log.info("tokenizer_connection_ended", address=self._address.target, reason=reason)
        elif reason != self._warned_of:
            log.warning("tokenizer_unreachable", address=self._address.target, reason=reason)
            self._warned_of = reason
        self._table.unreachable = reason

    def _refuse(self, reason: str, *, is_another: bool) -> None:
        """Notes why what the service has is not taken; says so once per reason."""
        if reason != self._table.refused:
            log.error("vocabulary_conflict", address=self._address.target, reason=reason)
        self._table.refused = reason
        self._table.is_another = is_another
        self._report_conflict(is_another)

    def _serve_meanwhile(self) -> None:
        """Serves revision 0 of the checkpoint, unless the operator has named the service."""
        if self._meanwhile is not None and not len(self._table):
            log.warning(
                "base_vocabulary_served",
                address=self._address.target,
                reason="nothing was followed there yet, and --tokenizer-address was not given",
            )
            self._append(self._meanwhile)
            self.caught_up.set()

    def _connect(self, connected: bool) -> None:
        if connected and not self._following.connected:
            log.info("tokenizer_followed", address=self._address.target)
            self._table.refused = self._table.unreachable = self._warned_of = ""
            self._report_conflict(False)
            self._backoff.reset()
        self._following.connected = connected

    async def _follow(self) -> None:
        """Follows one connection to its end."""
        async with self._address.channel() as channel:
            stub = tokenizer_service_pb2_grpc.TokenizerServiceStub(channel)
            metadata = self._address.metadata()
            info = await stub.GetTokenizerInfo(
                tokenizer_service_pb2.GetTokenizerInfoRequest(),
                timeout=CALL_TIMEOUT_S,
                metadata=metadata,
            )
            self._following.heard(info.vocabulary.revision)
            if self._first_revision is None:
                self._first_revision = info.vocabulary.revision
            self._check_history(info.vocabulary)
            if not self._table.spelled:
                await self._spell_tokens(stub, info, metadata)
            if info.vocabulary.revision == 0:
                self._begin(info, info.vocabulary.fingerprint)
            request = tokenizer_service_pb2.WatchVocabularyRequest(
                after_revision=max(0, len(self._table) - 1),
                heartbeat_interval=Duration(seconds=HEARTBEAT_S),
            )
            events = stub.WatchVocabulary(request, metadata=metadata)
            try:
                await self._read(events, info)
            finally:
                events.cancel()
                failed = await self._settle()
            if failed is not None:
                raise failed

    async def _read(
        self,
        events: "grpc.aio.UnaryStreamCall[Any, Any]",
        info: tokenizer_service_pb2.GetTokenizerInfoResponse,
    ) -> None:
        """Takes what the service sends, until the stream ends.

        Changes are verified one by one and sent on at once, so that the engine can
        take all changes that have gathered between the same two steps.
        """
        while True:
            async with asyncio.timeout(MISSED_HEARTBEATS * HEARTBEAT_S):
                received = await self._next(events)
            if received is grpc.aio.EOF:
                return
            event = cast(tokenizer_service_pb2.WatchVocabularyResponse, received)
            if event.WhichOneof("event") == "change":
                link = read_change(event.change)
                newest = max(self._following.known_revision, link.vocabulary.revision)
                self._following.heard(newest)
                self._begin(info, link.parent_fingerprint)
                self._take(link)
            else:
                self._following.heard(event.heartbeat.revision)
                self._check_history(event.heartbeat)
                if self._applying is None or self._applying.done():
                    self._connect(True)

    async def _next(self, events: "grpc.aio.UnaryStreamCall[Any, Any]") -> object:
        """Returns what the service sends next.

        Raises:
            ServiceError: meanwhile, or before, a change could not be applied.
        """
        reading = asyncio.ensure_future(events.read())
        try:
            while True:
                waits: set[asyncio.Future[Any]] = {reading}
                if self._applying is not None and self._applying.done():
                    self._applying.result()  # raises why it could not be applied
                elif self._applying is not None:
                    waits.add(self._applying)
                if reading.done():
                    return reading.result()
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()

    def _check_history(self, theirs: vocabulary_pb2.VocabularyRef) -> None:
        """Compares the service's newest revision with ours of the same number.

        Raises:
            ConflictError: it is another one.
        """
        if theirs.revision < len(self._table):
            ours = self._table.at(theirs.revision)
            if ours.fingerprint and theirs.fingerprint != ours.fingerprint:
                raise ConflictError(
                    f"revision {theirs.revision} of the tokenizer service has the fingerprint "
                    f"{theirs.fingerprint}, here it is {ours.fingerprint}"
                )

    def _begin(
        self, info: tokenizer_service_pb2.GetTokenizerInfoResponse, fingerprint: str
    ) -> None:
        """Enters revision 0, unless it is there already.

        Args:
            info: what the service says about itself.
            fingerprint: of the service's revision 0.

        Raises:
            ConflictError: the model was made for another vocabulary.
        """
        if len(self._table) and self._table.at(0).fingerprint:
            return
        if self._base is not None and self._base.fingerprint != fingerprint:
            raise ConflictError(
                f"the tokenizer service serves the vocabulary {fingerprint}, the checkpoint came "
                f"with {self._base.fingerprint}; start both with the same --model"
            )
        size = self._engine.info.vocabulary_size
        if info.base_size != size:
            raise ConflictError(
                f"the tokenizer service has {info.base_size} ids at revision 0, the model {size}; "
                "put the tokenizer.json that belongs to the model into its folder"
            )
        tokenizer_id = info.vocabulary.tokenizer_id
        self._append(Reference(tokenizer_id, 0, fingerprint, size))

    async def _spell_tokens(
        self,
        stub: "tokenizer_service_pb2_grpc.TokenizerServiceAsyncStub",
        info: tokenizer_service_pb2.GetTokenizerInfoResponse,
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        """Tells the engine the bytes of the ids of revision 0.

        Raises:
            ConflictError: they cannot be had, or the model's own configuration needs bytes
                that the tokenizer's tokens do not have.
        """
        token_bytes = await fetch_spelling(stub, info, metadata)
        if token_bytes is not None:
            self._engine.tell(SpellTokens(token_bytes))
            self._table.spelled = True
        elif self._engine.info.default_config.stop_strings:
            raise ConflictError(
                "generation_config.json sets stop_strings, but the text of this tokenizer is "
                "not the concatenation of its tokens; remove them from the file"
            )

    def _take(self, link: Link) -> None:
        """Verifies a change and sends it to the engine.

        Raises:
            BrokenChainError: it does not follow from the one before it.
        """
        newest = verify(self._head or self._table.newest, [link])
        self._head = newest
        self._applying = asyncio.create_task(self._apply(newest, link, self._applying))

    async def _apply(
        self, newest: Reference, link: Link, before: asyncio.Task[None] | None
    ) -> None:
        """Grows the engine, and only then lets requests use the revision.

        Args:
            newest: the state after the change.
            link: the change.
            before: what applies the change before it.
        """
        try:
            growth = GrowVocabulary(newest.revision, _new_rows(link.change))
            grown = await self._engine.ask(growth)
        finally:
            if before is not None:
                await before  # if that one failed, it is why this one did
        self._following.reserved_rows = grown.reserved_rows
        self._following.added_rows_sha256 = grown.added_rows_sha256
        self._metrics.vocabulary.grown(grown.pause_s)
        self._append(newest, link.change)
        self._connect(True)

    async def _settle(self) -> BaseException | None:
        """Waits until the engine has answered for every change that it was sent.

        Returns:
            Why one could not be applied. It is not raised, or it would take the place of
            what ends the connection, a cancellation above all.
        """
        applying, self._applying, self._head = self._applying, None, None
        if applying is None:
            return None
        await asyncio.wait([applying])
        return applying.exception()

    def _append(self, reference: Reference, change: Change = NO_CHANGE) -> None:
        not_generable = [new.id for new in change.tokens if not new.generable]
        self._table.append(reference, change.special_tokens, not_generable)
        self._metrics.vocabulary.served(reference.revision, reference.size)
        log.info("vocabulary_applied", revision=reference.revision, size=reference.size)
        if self._first_revision is not None and reference.revision >= self._first_revision:
            self.caught_up.set()


def _new_rows(change: Change) -> list[NewRow]:
    """Returns the rows that a change adds, as the engine takes them."""
    return [
        NewRow(
            token_id=token.id,
            initialization=token.initialization,
            generable=token.generable,
            previous_ids=list(token.previous_ids),
            copy_token_id=token.copy_token_id,
            input_values=token.input_values,
            output_values=token.output_values,
            token_bytes=token.token.content.encode(),
        )
        for token in change.tokens
    ]
