"""Changes of the vocabulary, for asyncio."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import Unpack

from lockstep.v1 import vocabulary_admin_service_pb2 as pb
from lockstep.v1.vocabulary_admin_service_pb2_grpc import VocabularyAdminServiceStub

from lockstep_client.aio.connection import AsyncConnection
from lockstep_client.connection import USE_DEFAULT, Timeout
from lockstep_client.new_token import NewToken
from lockstep_client.requests import vocabulary as requests
from lockstep_client.requests.vocabulary import AddOptions, ChangeOptions
from lockstep_client.results.vocabulary import (
    AddedTokens,
    ImportedRevisions,
    Revision,
    Verification,
)
from lockstep_client.vocabulary_ref import VocabularyRef


class AsyncVocabulary:
    """As `Vocabulary`, for asyncio. Methods have the same names, keywords and errors."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = VocabularyAdminServiceStub(connection.channel)

    async def add_tokens(
        self,
        tokens: Iterable[str | NewToken],
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[AddOptions],
    ) -> AddedTokens:
        """See `Vocabulary.add_tokens`."""
        request = requests.add_tokens(tokens, options)
        response = await self._connection.unary(self._stub.AddTokens, request, timeout)
        return AddedTokens.from_message(response)

    async def set_special_tokens(
        self,
        roles: Mapping[str, int],
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[ChangeOptions],
    ) -> VocabularyRef:
        """See `Vocabulary.set_special_tokens`."""
        request = requests.set_special_tokens(roles, options)
        response = await self._connection.unary(self._stub.SetSpecialTokens, request, timeout)
        return VocabularyRef.from_message(response.vocabulary)

    async def revisions(self, *, timeout: Timeout = USE_DEFAULT) -> AsyncIterator[Revision]:
        """See `Vocabulary.revisions`."""
        page_token = ""
        while True:
            request = pb.ListRevisionsRequest(page_token=page_token)
            response = await self._connection.unary(self._stub.ListRevisions, request, timeout)
            for revision in response.revisions:
                yield Revision.from_message(revision)
            page_token = response.next_page_token
            if not page_token:
                return

    async def verify(self, *, timeout: Timeout = USE_DEFAULT) -> Verification:
        """See `Vocabulary.verify`."""
        request = pb.VerifyRevisionsRequest()
        response = await self._connection.unary(self._stub.VerifyRevisions, request, timeout)
        return Verification.from_message(response)

    async def export_revisions(self, *, timeout: Timeout = USE_DEFAULT) -> AsyncIterator[bytes]:
        """See `Vocabulary.export_revisions`."""
        request = pb.ExportRevisionsRequest()
        responses = self._connection.stream(self._stub.ExportRevisions, request, timeout)
        async with aclosing(responses):
            async for response in responses:
                yield response.data

    async def import_revisions(
        self, archive: bytes | Iterable[bytes], *, timeout: Timeout = USE_DEFAULT
    ) -> ImportedRevisions:
        """See `Vocabulary.import_revisions`."""
        pieces = requests.import_revisions(archive)
        response = await self._connection.upload(self._stub.ImportRevisions, pieces, timeout)
        return ImportedRevisions.from_message(response)
