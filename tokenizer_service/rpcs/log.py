"""The methods about the log of revisions: it is listed, verified, exported and imported."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from lockstep.v1 import vocabulary_admin_service_pb2 as pb

from rpc.errors import InvalidField
from rpc.streams import until_drained
from tokenizer_service.growth.archive import ArchiveReader
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.growth.log_reader import archive_lines, find_broken
from tokenizer_service.rpcs.service import Service
from wire.pages import read_page
from wire.violations import Violations
from wire.vocabulary import vocabulary_change, vocabulary_ref

PAGE_BYTES = 2**20
CHUNK_BYTES = 2**20


async def list_revisions(
    request: pb.ListRevisionsRequest, service: Service
) -> pb.ListRevisionsResponse:
    """Returns a page of the log, as far as a message holds it.

    Raises:
        InvalidField: there is no such page.
    """
    violations = Violations()
    count = len(service.vocabulary.history) + 1  # revision 0 is the base
    start, page_size = read_page(request, violations, end=count)
    violations.check()
    end = min(start + page_size, count)
    response = pb.ListRevisionsResponse()
    size = 0
    while start < end and size < PAGE_BYTES:
        message = _revision(service.vocabulary, start)
        response.revisions.append(message)
        size += message.ByteSize()
        start += 1
    response.next_page_token = str(start) if start < count else ""
    return response


async def verify_revisions(
    request: pb.VerifyRevisionsRequest, service: Service
) -> pb.VerifyRevisionsResponse:
    """Computes the chain again from what the store holds."""
    newest = service.vocabulary.current.reference
    broken = await find_broken(service.vocabulary)
    return pb.VerifyRevisionsResponse(
        valid=broken is None,
        revision_count=newest.revision + 1,
        first_invalid_revision=None if broken is None else broken.revision,
        vocabulary=vocabulary_ref(newest),
    )


async def export_revisions(
    request: pb.ExportRevisionsRequest, service: Service
) -> AsyncIterator[pb.ExportRevisionsResponse]:
    """Yields the log as a file, in pieces."""
    pending = bytearray()
    newest = vocabulary_ref(service.vocabulary.current.reference)
    async for line in archive_lines(service.vocabulary):
        pending += line
        while len(pending) >= CHUNK_BYTES:
            yield pb.ExportRevisionsResponse(data=bytes(pending[:CHUNK_BYTES]), vocabulary=newest)
            del pending[:CHUNK_BYTES]
    yield pb.ExportRevisionsResponse(data=bytes(pending), vocabulary=newest)


async def import_revisions(
    request_iterator: AsyncIterator[pb.ImportRevisionsRequest], service: Service
) -> pb.ImportRevisionsResponse:
    """Appends what a file holds beyond the log: all of it or nothing.

    Raises:
        InvalidField: the file is not a log, or not one that can be served here.
        VocabularyMismatch: the log is of another chain.
    """
    vocabulary = service.vocabulary
    reader = ArchiveReader(vocabulary.at(0), vocabulary.history)
    async with aclosing(until_drained(request_iterator, service.draining)) as requests:
        async for request in requests:
            await asyncio.to_thread(reader.feed, request.data)
    archive = reader.finish()
    added = archive.newest.size - vocabulary.base_size
    if added > service.max_added_tokens:
        raise InvalidField("data", f"adds {added} tokens; the limit is {service.max_added_tokens}")
    new = [token for stored in archive.revisions for token in stored.link.change.tokens]
    try:
        service.model_rows.check(new)
    except InvalidField as error:
        raise InvalidField("data", f"does not fit the model: {error}") from None
    extension = await vocabulary.extend(archive)
    return pb.ImportRevisionsResponse(
        vocabulary=vocabulary_ref(extension.tokenizer.reference),
        num_revisions=archive.newest.revision,
        num_imported_revisions=extension.num_revisions,
        num_imported_replies=extension.num_replies,
    )


def _revision(vocabulary: LiveVocabulary, revision: int) -> pb.Revision:
    """Writes a revision for people: without vectors."""
    if revision == 0:
        return pb.Revision(vocabulary=vocabulary_ref(vocabulary.at(0)))
    stored = vocabulary.history[revision - 1]
    change = vocabulary_change(stored.link, stored.create_time, vocabulary.current.table.tokens)
    for token in change.tokens:
        token.ClearField("input_values")
        token.ClearField("output_values")
    return pb.Revision(
        vocabulary=change.vocabulary,
        parent_fingerprint=change.parent_fingerprint,
        tokens=change.tokens,
        special_tokens=change.special_tokens,
        create_time=change.create_time,
        marked_tokens=change.marked_tokens,
    )
