"""Follows the vocabulary of a tokenizer service and grows the model with it.

Every change is checked against the chain before the engine sees it. A tokenizer
service whose chain is another one is never followed: the model is then not
served, or stays on the revisions that it has.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import cast

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import (
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
    vocabulary_pb2,
)

from model_service.engine_client.client import EngineClient
from model_service.messages import NewRow
from model_service.metrics import ModelMetrics
from model_service.revisions.change import read_link
from model_service.revisions.table import VocabularyTable
from rpc.errors import ServiceError
from vocabulary import BrokenChainError, Link, Reference, SpecialToken, verify

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
CALL_TIMEOUT_S = 10.0
HEARTBEAT_S = 5
MISSED_HEARTBEATS = 3

NO_ROWS_SHA256 = hashlib.sha256().hexdigest()

log = structlog.stdlib.get_logger("model_service.revisions.follower")


class ConflictError(Exception):
    """The tokenizer service has another vocabulary than this model."""


@dataclass(slots=True)
class VocabularyState:
    """What is known about the rows of the model's vocabulary.

    Attributes:
        connected: whether the tokenizer service is being followed now.
        reserved_rows: rows that can be added without new memory.
        added_rows_sha256: over all rows added since revision 0.
    """

    connected: bool = False
    reserved_rows: int = 0
    added_rows_sha256: str = NO_ROWS_SHA256


class Follower:
    """Keeps a vocabulary table, and the engine, in step with a tokenizer service.

    Attributes:
        caught_up: set once every revision that the service had at the first
            contact is applied.
    """

    def __init__(
        self,
        address: str,
        base: Reference | None,
        table: VocabularyTable,
        engine: EngineClient,
        metrics: ModelMetrics,
        state: VocabularyState,
    ) -> None:
        """Prepares to follow; `run` follows.

        Args:
            address: `host:port` of the tokenizer service.
            base: revision 0 as the checkpoint has it; None when the checkpoint
                has no tokenizer, and then the service's is trusted.
            table: revisions applied so far; without any at first.
            engine: what grows.
            metrics: where growth is recorded.
            state: is kept up to date.
        """
        self.caught_up = asyncio.Event()
        self._address = address
        self._base = base
        self._table = table
        self._engine = engine
        self._metrics = metrics
        self._state = state
        self._backoff_s = FIRST_BACKOFF_S

    async def run(self) -> None:
        """Follows until cancelled, through every loss of the connection."""
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                log.warning("tokenizer_unreachable", address=self._address, code=error.code().name)
            except TimeoutError:
                log.warning("tokenizer_silent", address=self._address)
            except (ConflictError, BrokenChainError, ValueError) as error:
                log.error("vocabulary_conflict", address=self._address, reason=str(error))
            except ServiceError as error:
                log.error("vocabulary_growth_failed", reason=str(error))
            finally:
                self._set_connected(False)
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)

    async def _follow(self) -> None:
        """Follows one connection to its end."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = tokenizer_service_pb2_grpc.TokenizerServiceStub(channel)
            info = await stub.GetTokenizerInfo(
                tokenizer_service_pb2.GetTokenizerInfoRequest(), timeout=CALL_TIMEOUT_S
            )
            self._check_history(info.vocabulary)
            if not len(self._table):
                await self._spell_tokens(stub, info)
            if info.vocabulary.revision == 0:
                self._begin(info, info.vocabulary.fingerprint)
            request = tokenizer_service_pb2.WatchVocabularyRequest(
                after_revision=max(0, len(self._table) - 1),
                heartbeat_interval=Duration(seconds=HEARTBEAT_S),
            )
            events = stub.WatchVocabulary(request)
            try:
                while True:
                    if len(self._table) > info.vocabulary.revision:
                        self._set_connected(True)
                        self._backoff_s = FIRST_BACKOFF_S
                        self.caught_up.set()
                    async with asyncio.timeout(MISSED_HEARTBEATS * HEARTBEAT_S):
                        received = await events.read()
                    if received is grpc.aio.EOF:
                        return
                    event = cast(tokenizer_service_pb2.WatchVocabularyResponse, received)
                    if event.WhichOneof("event") == "change":
                        link = read_link(event.change)
                        self._begin(info, link.parent_fingerprint)
                        await self._apply(link)
            finally:
                events.cancel()

    def _check_history(self, theirs: vocabulary_pb2.VocabularyRef) -> None:
        """Compares the service's newest revision with ours of the same number."""
        if theirs.revision < len(self._table):
            ours = self._table.at(theirs.revision)
            if theirs.fingerprint != ours.fingerprint:
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
        if len(self._table):
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
    ) -> None:
        """Tells the engine the bytes of the ids of revision 0; later ids come with theirs.

        Raises:
            ConflictError: the service does not have as many ids as it says, or the model's own
                configuration needs bytes that the tokenizer's tokens do not have.
        """
        if not info.token_bytes_concatenate:
            if self._engine.info.default_config.stop_strings:
                raise ConflictError(
                    "generation_config.json sets stop_strings, but the text of this tokenizer is "
                    "not the concatenation of its tokens; remove them from the file"
                )
            return
        token_bytes: list[bytes] = []
        request = tokenizer_service_pb2.GetVocabularyRequest()
        async for part in stub.GetVocabulary(request, timeout=CALL_TIMEOUT_S):
            token_bytes += [entry.token_bytes for entry in part.entries]
        if len(token_bytes) < info.base_size:
            raise ConflictError(
                f"the tokenizer service names {len(token_bytes)} of its {info.base_size} ids"
            )
        self._engine.growth.spell(token_bytes[: info.base_size])
        self._table.spelled = True

    async def _apply(self, link: Link) -> None:
        """Verifies a change, grows the engine by it, and only then lets requests use it."""
        newest = verify(self._table.newest, [link])
        grown = await self._engine.growth.grow(
            newest.revision,
            [
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
                for token in link.change.tokens
            ],
        )
        self._state.reserved_rows = grown.reserved_rows
        self._state.added_rows_sha256 = grown.added_rows_sha256
        self._metrics.vocabulary_grown(grown.pause_s)
        self._append(newest, link.change.special_tokens)

    def _append(self, reference: Reference, special_tokens: tuple[SpecialToken, ...] = ()) -> None:
        self._table.append(reference, special_tokens)
        self._metrics.vocabulary(reference.revision, reference.size)
        log.info("vocabulary_applied", revision=reference.revision, size=reference.size)

    def _set_connected(self, connected: bool) -> None:
        self._state.connected = connected
        self._metrics.follower_connected(connected)
