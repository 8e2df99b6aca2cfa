"""The two gRPC services, a line per method: each stands in the module of its subject.

They are registered before the tokenizer is loaded. Until the service is there, the server admits
no call. A method that returns `Serialized` has made its response in a thread, as the event loop
would stand still meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator

from lockstep.v1 import (
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
    vocabulary_admin_service_pb2,
    vocabulary_admin_service_pb2_grpc,
)

from rpc.handlers import Context, Serialized
from tokenizer_service.rpcs import additions, chat, decode, encode, log, padding, vocabulary
from tokenizer_service.rpcs.service import Service

# mypy: disable-error-code="override"


class TokenizerServicer(tokenizer_service_pb2_grpc.TokenizerServiceServicer):
    """`lockstep.v1.TokenizerService`."""

    def __init__(self, service: asyncio.Future[Service]) -> None:
        """Serves what is there once it is loaded."""
        self._service = service

    async def Encode(
        self, request: tokenizer_service_pb2.EncodeRequest, context: Context
    ) -> Serialized:
        return await encode.encode(request, self._service.result())

    def EncodeStream(
        self,
        request_iterator: AsyncIterator[tokenizer_service_pb2.EncodeStreamRequest],
        context: Context,
    ) -> AsyncIterator[tokenizer_service_pb2.EncodeStreamResponse]:
        return encode.encode_stream(request_iterator, self._service.result())

    async def CountTokens(
        self, request: tokenizer_service_pb2.CountTokensRequest, context: Context
    ) -> tokenizer_service_pb2.CountTokensResponse:
        return await encode.count_tokens(request, self._service.result())

    async def Decode(
        self, request: tokenizer_service_pb2.DecodeRequest, context: Context
    ) -> Serialized:
        return await decode.decode(request, self._service.result())

    def DecodeStream(
        self,
        request_iterator: AsyncIterator[tokenizer_service_pb2.DecodeStreamRequest],
        context: Context,
    ) -> AsyncIterator[tokenizer_service_pb2.DecodeStreamResponse]:
        return decode.decode_stream(request_iterator, self._service.result())

    async def Pad(
        self, request: tokenizer_service_pb2.PadRequest, context: Context
    ) -> tokenizer_service_pb2.PadResponse:
        return await padding.pad(request, self._service.result())

    async def ApplyChatTemplate(
        self, request: tokenizer_service_pb2.ApplyChatTemplateRequest, context: Context
    ) -> Serialized:
        return await chat.apply_chat_template(request, self._service.result())

    async def ConvertTokens(
        self, request: tokenizer_service_pb2.ConvertTokensRequest, context: Context
    ) -> Serialized:
        return await vocabulary.convert_tokens(request, self._service.result())

    async def GetTokenizerInfo(
        self, request: tokenizer_service_pb2.GetTokenizerInfoRequest, context: Context
    ) -> tokenizer_service_pb2.GetTokenizerInfoResponse:
        return vocabulary.tokenizer_info(self._service.result())

    def GetVocabulary(
        self, request: tokenizer_service_pb2.GetVocabularyRequest, context: Context
    ) -> AsyncIterator[tokenizer_service_pb2.GetVocabularyResponse]:
        return vocabulary.entries_from(request, self._service.result())

    def GetTokenizerArtifact(
        self, request: tokenizer_service_pb2.GetTokenizerArtifactRequest, context: Context
    ) -> AsyncIterator[tokenizer_service_pb2.GetTokenizerArtifactResponse]:
        return vocabulary.tokenizer_artifact(self._service.result())

    def WatchVocabulary(
        self, request: tokenizer_service_pb2.WatchVocabularyRequest, context: Context
    ) -> AsyncIterator[tokenizer_service_pb2.WatchVocabularyResponse]:
        return vocabulary.watch(request, self._service.result())


class VocabularyAdminServicer(vocabulary_admin_service_pb2_grpc.VocabularyAdminServiceServicer):
    """`lockstep.v1.VocabularyAdminService`."""

    def __init__(self, service: asyncio.Future[Service]) -> None:
        """Serves what is there once it is loaded."""
        self._service = service

    async def AddTokens(
        self, request: vocabulary_admin_service_pb2.AddTokensRequest, context: Context
    ) -> vocabulary_admin_service_pb2.AddTokensResponse:
        return await additions.add_tokens(request, self._service.result())

    async def SetSpecialTokens(
        self, request: vocabulary_admin_service_pb2.SetSpecialTokensRequest, context: Context
    ) -> vocabulary_admin_service_pb2.SetSpecialTokensResponse:
        return await additions.set_special_tokens(request, self._service.result())

    async def ListRevisions(
        self, request: vocabulary_admin_service_pb2.ListRevisionsRequest, context: Context
    ) -> vocabulary_admin_service_pb2.ListRevisionsResponse:
        return log.list_revisions(request, self._service.result())

    async def VerifyRevisions(
        self, request: vocabulary_admin_service_pb2.VerifyRevisionsRequest, context: Context
    ) -> vocabulary_admin_service_pb2.VerifyRevisionsResponse:
        return await log.verify_revisions(self._service.result())

    def ExportRevisions(
        self, request: vocabulary_admin_service_pb2.ExportRevisionsRequest, context: Context
    ) -> AsyncIterator[vocabulary_admin_service_pb2.ExportRevisionsResponse]:
        return log.export_revisions(self._service.result())

    async def ImportRevisions(
        self,
        request_iterator: AsyncIterator[vocabulary_admin_service_pb2.ImportRevisionsRequest],
        context: Context,
    ) -> vocabulary_admin_service_pb2.ImportRevisionsResponse:
        return await log.import_revisions(request_iterator, self._service.result())
