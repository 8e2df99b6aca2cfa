"""The methods of `lockstep.v1.TokenizerService` about the vocabulary itself."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import asdict

from lockstep.v1 import tokenizer_service_pb2 as pb

from rpc.errors import Draining, InvalidField, VocabularyBehind
from rpc.handlers import Serialized
from tokenizer_service.metrics import installed
from tokenizer_service.rpcs.request_fields import MAX_LOOKUPS, check_ids, check_range
from tokenizer_service.rpcs.response_parts import ResponseParts
from tokenizer_service.rpcs.served_tokenizer import Context, TokenizerMethods
from tokenizer_service.rpcs.vocabulary_convert import (
    special_tokens,
    vocabulary_change,
    vocabulary_entries,
    vocabulary_ref,
)
from tokenizer_service.text import artifact
from tokenizer_service.text.work_cost import decoding_cost
from tokenizer_service.worker_pool import Pieces, finish
from wire import times

ENTRIES_PER_MESSAGE = 1024
CHUNK_BYTES = 2**20
# So many are looked up on the event loop: that takes less than a millisecond.
FEW_LOOKUPS = 256
DEFAULT_HEARTBEAT_S = 10.0


class VocabularyMethods(TokenizerMethods):
    """Describes, hands out and follows the vocabulary."""

    async def ConvertTokens(  # type: ignore[override]  # made in a thread, as `TextMethods` says
        self, request: pb.ConvertTokensRequest, context: Context
    ) -> Serialized:
        tokenizer = self._vocabulary.current
        if len(request.tokens) + len(request.ids) > MAX_LOOKUPS:
            raise InvalidField("tokens", f"and ids must have at most {MAX_LOOKUPS} entries")
        check_ids("ids", 0, request.ids, tokenizer.size)

        def work() -> Pieces[Serialized]:
            parts = ResponseParts(self._max_response_bytes)
            for start in range(0, len(request.ids), ENTRIES_PER_MESSAGE):
                ids = request.ids[start : start + ENTRIES_PER_MESSAGE]
                entries = vocabulary_entries(tokenizer.table, ids)
                parts.append(pb.ConvertTokensResponse(entries=entries))
                yield
            return parts.joined(
                pb.ConvertTokensResponse(
                    tokens=[
                        pb.ConvertedToken(id=tokenizer.id_of(token)) for token in request.tokens
                    ],
                    vocabulary=vocabulary_ref(tokenizer.reference),
                )
            )

        if len(request.tokens) + len(request.ids) <= FEW_LOOKUPS:
            return finish(work())
        cost = decoding_cost(request.ByteSize(), self._max_response_bytes)
        return await self._pool.run_pieces(work(), cost)

    async def GetTokenizerInfo(
        self, request: pb.GetTokenizerInfoRequest, context: Context
    ) -> pb.GetTokenizerInfoResponse:
        tokenizer = self._vocabulary.current
        return pb.GetTokenizerInfoResponse(
            vocabulary=vocabulary_ref(tokenizer.reference),
            base_size=self._vocabulary.base_size,
            model_max_length=self._files.model_max_length,
            special_tokens=special_tokens(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            control_token_ids=sorted(tokenizer.control_ids),
            model_type=tokenizer.model_type,
            chat_templates=[
                pb.ChatTemplateInfo(name=name, fingerprint=fingerprint)
                for name, fingerprint in self._templates.fingerprints.items()
            ],
            limits=pb.TokenizerLimits(**asdict(self._limits)),
            token_bytes_concatenate=tokenizer.decoder_rules.concatenates,
            server_version=installed("lockstep"),
        )

    async def GetVocabulary(
        self, request: pb.GetVocabularyRequest, context: Context
    ) -> AsyncIterator[pb.GetVocabularyResponse]:
        tokenizer = self._vocabulary.current
        first = check_range("start_id", request.start_id, 0, tokenizer.size)
        # After the last id come no entries, but one message that names the vocabulary.
        for start in range(first, max(tokenizer.size, first + 1), ENTRIES_PER_MESSAGE):
            end = min(start + ENTRIES_PER_MESSAGE, tokenizer.size)
            yield pb.GetVocabularyResponse(
                entries=vocabulary_entries(tokenizer.table, range(start, end)),
                vocabulary=vocabulary_ref(tokenizer.reference),
            )

    async def GetTokenizerArtifact(
        self, request: pb.GetTokenizerArtifactRequest, context: Context
    ) -> AsyncIterator[pb.GetTokenizerArtifactResponse]:
        tokenizer = self._vocabulary.current
        archive = await self._pool.run(lambda: artifact.build(tokenizer, self._files))
        last = (len(archive) - 1) // CHUNK_BYTES
        for index in range(last + 1):
            chunk = archive[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            response = pb.GetTokenizerArtifactResponse(data=chunk)
            if index == last:
                response.sha256 = hashlib.sha256(archive).hexdigest()
                response.vocabulary.CopyFrom(vocabulary_ref(tokenizer.reference))
            yield response

    async def WatchVocabulary(
        self, request: pb.WatchVocabularyRequest, context: Context
    ) -> AsyncIterator[pb.WatchVocabularyResponse]:
        revision = check_range("after_revision", request.after_revision, 0, 2**63 - 1)
        interval_s = _heartbeat_interval(request)
        await self._vocabulary.reach(revision)  # what it has may come from another replica
        newest = self._vocabulary.current.reference.revision
        if revision > newest:
            raise VocabularyBehind(request_revision=revision, server_revision=newest)
        while True:
            for stored in self._vocabulary.history[revision:]:
                yield pb.WatchVocabularyResponse(
                    change=vocabulary_change(stored, self._vocabulary.current.table)
                )
                revision = stored.link.vocabulary.revision
            # Also the first time, so that a follower knows that it has everything.
            if revision == self._vocabulary.current.reference.revision:
                yield pb.WatchVocabularyResponse(
                    heartbeat=vocabulary_ref(self._vocabulary.current.reference)
                )
            await self._wait_for_more(revision, interval_s)

    async def _wait_for_more(self, revision: int, timeout_s: float) -> None:
        """Waits for a newer revision, the heartbeat's time or the end of the server.

        Raises:
            Draining: the server is shutting down; the follower finds another replica.
        """
        waits = [
            asyncio.ensure_future(self._vocabulary.wait_beyond(revision, timeout_s)),
            asyncio.ensure_future(self._draining.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._draining.is_set():
            raise Draining


def _heartbeat_interval(request: pb.WatchVocabularyRequest) -> float:
    if not request.HasField("heartbeat_interval"):
        return DEFAULT_HEARTBEAT_S
    interval_s = times.seconds(request.heartbeat_interval)
    if not 0.1 <= interval_s <= 60:
        bounds = f"must be in [0.1 s, 60 s], with {times.NANOS}"
        raise InvalidField("heartbeat_interval", bounds)
    return interval_s
