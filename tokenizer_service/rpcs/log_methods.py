"""The methods of `lockstep.v1.VocabularyAdminService` about the log of revisions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from lockstep.v1 import vocabulary_admin_service_pb2 as pb
from lockstep.v1 import vocabulary_admin_service_pb2_grpc

from rpc.errors import InvalidField
from rpc.streams import until_drained
from tokenizer_service.growth.archive import ArchiveReader
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.growth.log_reader import archive_lines, find_broken
from tokenizer_service.growth.model_rows import ModelRows
from tokenizer_service.rpcs.request_fields import check_range
from tokenizer_service.rpcs.served_tokenizer import Context
from tokenizer_service.rpcs.vocabulary_convert import revision_message, vocabulary_ref

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
PAGE_BYTES = 2**20
CHUNK_BYTES = 2**20


class LogMethods(vocabulary_admin_service_pb2_grpc.VocabularyAdminServiceServicer):
    """Lists, verifies, exports and imports. Until `serve`, the server admits no call."""

    model_rows = ModelRows()  # unknown unless `server.py` sets it

    def serve(
        self, vocabulary: LiveVocabulary, draining: asyncio.Event, *, max_added_tokens: int
    ) -> None:
        """Provides what the methods work with.

        Args:
            vocabulary: what they change.
            draining: set when the server shuts down.
            max_added_tokens: most tokens that all revisions may add.
        """
        self._vocabulary = vocabulary
        self._draining = draining
        self._max_added_tokens = max_added_tokens

    async def ListRevisions(
        self, request: pb.ListRevisionsRequest, context: Context
    ) -> pb.ListRevisionsResponse:
        page_size = check_range("page_size", request.page_size, 0, MAX_PAGE_SIZE)
        count = len(self._vocabulary.history) + 1  # revision 0 is the base
        start = _read_page_token(request.page_token, count)
        end = min(start + (page_size or DEFAULT_PAGE_SIZE), count)
        response = pb.ListRevisionsResponse()
        size = 0
        while start < end and size < PAGE_BYTES:
            message = self._revision(start)
            response.revisions.append(message)
            size += message.ByteSize()
            start += 1
        response.next_page_token = str(start) if start < count else ""
        return response

    async def VerifyRevisions(
        self, request: pb.VerifyRevisionsRequest, context: Context
    ) -> pb.VerifyRevisionsResponse:
        newest = self._vocabulary.current.reference
        broken = await find_broken(self._vocabulary)
        return pb.VerifyRevisionsResponse(
            valid=broken is None,
            revision_count=newest.revision + 1,
            first_invalid_revision=None if broken is None else broken.revision,
            vocabulary=vocabulary_ref(newest),
        )

    async def ExportRevisions(
        self, request: pb.ExportRevisionsRequest, context: Context
    ) -> AsyncIterator[pb.ExportRevisionsResponse]:
        pending = bytearray()
        newest = vocabulary_ref(self._vocabulary.current.reference)
        async for line in archive_lines(self._vocabulary):
            pending += line
            while len(pending) >= CHUNK_BYTES:
                yield pb.ExportRevisionsResponse(
                    data=bytes(pending[:CHUNK_BYTES]), vocabulary=newest
                )
                del pending[:CHUNK_BYTES]
        yield pb.ExportRevisionsResponse(data=bytes(pending), vocabulary=newest)

    async def ImportRevisions(
        self, request_iterator: AsyncIterator[pb.ImportRevisionsRequest], context: Context
    ) -> pb.ImportRevisionsResponse:
        present = self._vocabulary.history
        reader = ArchiveReader(self._vocabulary.at(0), present)
        async with aclosing(until_drained(request_iterator, self._draining)) as requests:
            async for request in requests:
                await asyncio.to_thread(reader.feed, request.data)
        archive = reader.finish()
        added = archive.newest.size - self._vocabulary.base_size
        if added > self._max_added_tokens:
            raise InvalidField(
                "data", f"adds {added} tokens; the limit is {self._max_added_tokens}"
            )
        new = [token for stored in archive.revisions for token in stored.link.change.tokens]
        try:
            self.model_rows.check(new)
        except InvalidField as error:
            raise InvalidField("data", f"does not fit the model: {error}") from None
        extension = await self._vocabulary.extend(archive)
        return pb.ImportRevisionsResponse(
            vocabulary=vocabulary_ref(extension.tokenizer.reference),
            num_revisions=archive.newest.revision,
            num_imported_revisions=extension.num_revisions,
            num_imported_replies=extension.num_replies,
        )

    def _revision(self, revision: int) -> pb.Revision:
        if revision == 0:
            return pb.Revision(vocabulary=vocabulary_ref(self._vocabulary.at(0)))
        stored = self._vocabulary.history[revision - 1]
        return revision_message(stored, self._vocabulary.current.table)


def _read_page_token(token: str, count: int) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < count):
        raise InvalidField("page_token", "must be the next_page_token of an earlier page")
    return int(token)
