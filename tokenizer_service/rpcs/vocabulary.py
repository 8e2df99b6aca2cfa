"""The methods about the vocabulary itself: it is looked up, described, handed out and followed."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict

from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import vocabulary_pb2

from rpc import distribution
from rpc.errors import Draining, InvalidField
from rpc.handlers import Serialized
from tokenizer_service.rpcs.large_response import LargeResponse
from tokenizer_service.rpcs.service import Service
from tokenizer_service.text import artifact
from tokenizer_service.text.token_table import TokenTable
from tokenizer_service.text.work_cost import decoding_cost
from tokenizer_service.worker_pool import Pieces, finish
from vocabulary import SpecialToken
from wire import times
from wire.token_ids import check_token_ids
from wire.violations import Violations
from wire.vocabulary import special_tokens, vocabulary_change, vocabulary_ref

# Ids and tokens looked up by one call.
MAX_LOOKUPS = 65536
ENTRIES_PER_MESSAGE = 1024
CHUNK_BYTES = 2**20
# So many are looked up on the event loop: that takes less than a millisecond.
FEW_LOOKUPS = 256
DEFAULT_HEARTBEAT_S = 10.0


async def convert_tokens(request: pb.ConvertTokensRequest, service: Service) -> Serialized:
    """Looks up tokens by their spelling, and ids.

    Raises:
        InvalidField: there are too many.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    tokenizer = service.vocabulary.current
    num_lookups = len(request.tokens) + len(request.ids)
    if num_lookups > MAX_LOOKUPS:
        raise InvalidField("tokens", f"and ids must have at most {MAX_LOOKUPS} entries")
    check_token_ids("ids", [request.ids], tokenizer.size, one_row=True)

    def work() -> Pieces[Serialized]:
        response = LargeResponse(service.max_response_bytes)
        for start in range(0, len(request.ids), ENTRIES_PER_MESSAGE):
            ids = request.ids[start : start + ENTRIES_PER_MESSAGE]
            entries = vocabulary_entries(tokenizer.table, ids)
            response.append(pb.ConvertTokensResponse(entries=entries))
            yield
        return response.joined(
            pb.ConvertTokensResponse(
                tokens=[pb.ConvertedToken(id=tokenizer.id_of(token)) for token in request.tokens],
                vocabulary=vocabulary_ref(tokenizer.reference),
            )
        )

    if num_lookups <= FEW_LOOKUPS:
        return finish(work())
    cost = decoding_cost(request.ByteSize(), service.max_response_bytes)
    return await service.pool.run_pieces(work(), cost)


async def tokenizer_info(
    request: pb.GetTokenizerInfoRequest, service: Service
) -> pb.GetTokenizerInfoResponse:
    """Describes the tokenizer and the limits of requests."""
    tokenizer = service.vocabulary.current
    roles = [SpecialToken(role, token_id) for role, token_id in tokenizer.roles.items()]
    return pb.GetTokenizerInfoResponse(
        vocabulary=vocabulary_ref(tokenizer.reference),
        base_size=service.vocabulary.base_size,
        model_max_length=service.files.model_max_length,
        special_tokens=special_tokens(roles, tokenizer.table.tokens),
        pad_token_id=tokenizer.pad_token_id,
        control_token_ids=sorted(tokenizer.control_ids),
        model_type=tokenizer.model_type,
        chat_templates=[
            pb.ChatTemplateInfo(name=name, fingerprint=fingerprint)
            for name, fingerprint in service.templates.fingerprints.items()
        ],
        limits=pb.TokenizerLimits(**asdict(service.limits)),
        token_bytes_concatenate=tokenizer.decoder_rules.concatenates,
        server_version=distribution.installed(),
    )


async def entries_from(
    request: pb.GetVocabularyRequest, service: Service
) -> AsyncIterator[pb.GetVocabularyResponse]:
    """Yields the entries from an id on.

    Raises:
        InvalidField: the id is beyond the end.
    """
    tokenizer = service.vocabulary.current
    violations = Violations()
    first = violations.in_range("start_id", request.start_id, 0, tokenizer.size)
    violations.check()
    # After the last id come no entries, but one message that names the vocabulary.
    for start in range(first, max(tokenizer.size, first + 1), ENTRIES_PER_MESSAGE):
        end = min(start + ENTRIES_PER_MESSAGE, tokenizer.size)
        yield pb.GetVocabularyResponse(
            entries=vocabulary_entries(tokenizer.table, range(start, end)),
            vocabulary=vocabulary_ref(tokenizer.reference),
        )


async def tokenizer_artifact(
    request: pb.GetTokenizerArtifactRequest, service: Service
) -> AsyncIterator[pb.GetTokenizerArtifactResponse]:
    """Yields the files of the tokenizer as an archive, in pieces."""
    tokenizer = service.vocabulary.current
    archive = await service.pool.run(lambda: artifact.build(tokenizer, service.files))
    last = (len(archive) - 1) // CHUNK_BYTES
    for index in range(last + 1):
        chunk = archive[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        response = pb.GetTokenizerArtifactResponse(data=chunk)
        if index == last:
            response.sha256 = hashlib.sha256(archive).hexdigest()
            response.vocabulary.CopyFrom(vocabulary_ref(tokenizer.reference))
        yield response


async def watch(
    request: pb.WatchVocabularyRequest, service: Service
) -> AsyncIterator[pb.WatchVocabularyResponse]:
    """Yields the revisions after one, those to come too, and heartbeats.

    Raises:
        Draining: the server is shutting down.
        InvalidField: a field is out of its range.
        VocabularyBehind: this replica does not have the revision.
    """
    vocabulary = service.vocabulary
    violations = Violations()
    revision = violations.in_range("after_revision", request.after_revision, 0, 2**63 - 1)
    interval_s = _read_heartbeat_interval(request, violations)
    violations.check()
    await vocabulary.reach(revision)  # what it has may come from another replica
    vocabulary.require(revision)
    while True:
        for stored in vocabulary.history[revision:]:
            tokens = vocabulary.current.table.tokens
            change = vocabulary_change(stored.link, stored.create_time, tokens)
            yield pb.WatchVocabularyResponse(change=change)
            revision = stored.link.vocabulary.revision
        # Also the first time, so that a follower knows that it has everything.
        newest = vocabulary.current.reference
        if revision == newest.revision:
            yield pb.WatchVocabularyResponse(heartbeat=vocabulary_ref(newest))
        await _wait_for_more(service, revision, interval_s)


def vocabulary_entries(
    table: TokenTable, ids: Iterable[int]
) -> list[vocabulary_pb2.VocabularyEntry]:
    """Writes entries of the vocabulary."""
    return [
        vocabulary_pb2.VocabularyEntry(
            id=token_id,
            token_bytes=table.token_bytes[token_id],
            type=f"TOKEN_TYPE_{table.types[token_id].name}",
            spelling=table.tokens[token_id],
        )
        for token_id in ids
    ]


async def _wait_for_more(service: Service, revision: int, timeout_s: float) -> None:
    """Waits for a newer revision, the heartbeat's time or the end of the server.

    Raises:
        Draining: the server is shutting down; the follower finds another replica.
    """
    waits = [
        asyncio.ensure_future(service.vocabulary.wait_beyond(revision, timeout_s)),
        asyncio.ensure_future(service.draining.wait()),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if service.draining.is_set():
        raise Draining


def _read_heartbeat_interval(request: pb.WatchVocabularyRequest, violations: Violations) -> float:
    if not request.HasField("heartbeat_interval"):
        return DEFAULT_HEARTBEAT_S
    interval_s = times.seconds(request.heartbeat_interval)
    if not 0.1 <= interval_s <= 60:
        bounds = f"must be in [0.1 s, 60 s], with {times.NANOS}"
        violations.add("heartbeat_interval", bounds)
    return interval_s
