"""Changes of the vocabulary, for asyncio."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Unpack

from lockstep.v1 import vocabulary_admin_service_pb2 as pb
from lockstep.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from lockstep.v1.vocabulary_admin_service_pb2_grpc import VocabularyAdminServiceStub

from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._requests import vocabulary as requests
from lockstep_client._requests.options import AddOptions, ChangeOptions
from lockstep_client._results.vocabulary import (
    AddedTokens,
    ImportedRevisions,
    Revision,
    Verification,
)
from lockstep_client._transport.async_connection import AsyncConnection
from lockstep_client._transport.endpoint import USE_DEFAULT, Timeout
from lockstep_client._values.new_token import NewToken
from lockstep_client._values.one_line import described
from lockstep_client._values.vocabulary_ref import VocabularyRef


@with_keywords
class AsyncVocabulary:
    """Changes the vocabulary while both services run.

    Every method takes a `timeout` in seconds, None for none, and raises
    `LockstepError` when its call fails.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = VocabularyAdminServiceStub(connection.channel)
        self._tokens = TokenizerServiceStub(connection.channel)

    def __repr__(self) -> str:
        return described(self, f"at {self._connection.endpoint.address}")

    async def add_tokens(
        self,
        tokens: Iterable[str | NewToken],
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[AddOptions],
    ) -> AddedTokens:
        """Adds tokens as one new revision, durable when this returns.

        Args:
            tokens: texts, or `NewToken`s for those with flags or vectors of their own.
            timeout: in seconds.
            **options: see `AddOptions`.

        Raises:
            TokenExists: a token exists with other attributes.
            RevisionConflict: the vocabulary is not at `expected_revision` any more.
            StoreUnavailable: the store failed; nothing was changed.
        """
        request = requests.add_tokens(tokens, options)
        response = await self._connection.unary(self._stub.AddTokens, request, timeout)
        return AddedTokens.from_message(response)

    async def set_special_tokens(
        self,
        roles: Mapping[str, int | str],
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[ChangeOptions],
    ) -> VocabularyRef:
        """Gives roles to existing ids as one new revision.

        Args:
            roles: id or spelling of each role's token, for example `{"pad": "<pad>"}`.
            timeout: in seconds.
            **options: see `ChangeOptions`.

        Returns:
            The vocabulary after it.

        Raises:
            RevisionConflict: the vocabulary is not at `expected_revision` any more.
        """
        spelled = requests.spelled(roles)
        if spelled.tokens:
            found = await self._connection.unary(self._tokens.ConvertTokens, spelled, timeout)
            roles = requests.resolved(roles, found)
        request = requests.set_special_tokens(roles, options)
        response = await self._connection.unary(self._stub.SetSpecialTokens, request, timeout)
        return VocabularyRef.from_message(response.vocabulary)

    async def revisions(self, *, timeout: Timeout = USE_DEFAULT) -> AsyncIterator[Revision]:
        """Yields the revisions, oldest first; `timeout` applies to each page."""
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
        """Recomputes the chain of revisions from the store and compares every fingerprint."""
        request = pb.VerifyRevisionsRequest()
        response = await self._connection.unary(self._stub.VerifyRevisions, request, timeout)
        return Verification.from_message(response)

    async def export_revisions(self, *, timeout: Timeout = USE_DEFAULT) -> AsyncIterator[bytes]:
        """Yields an archive of the whole log piece by piece: a backup, vectors included."""
        request = pb.ExportRevisionsRequest()
        responses = self._connection.stream(self._stub.ExportRevisions, request, timeout)
        async with aclosing(responses):
            async for response in responses:
                yield response.data

    async def import_revisions(
        self, archive: bytes | Iterable[bytes], *, timeout: Timeout = USE_DEFAULT
    ) -> ImportedRevisions:
        """Makes those revisions of an archive durable that continue the present ones.

        Repeating it changes nothing, so a call that failed can be made again, and is, unless
        the pieces can be read only once.

        Args:
            archive: what `export_revisions` gave, as a whole or in pieces.
            timeout: in seconds.
        """
        response = await self._connection.upload(
            self._stub.ImportRevisions,
            lambda: requests.import_revisions(archive),
            timeout,
            repeatable=not isinstance(archive, Iterator),
        )
        return ImportedRevisions.from_message(response)
