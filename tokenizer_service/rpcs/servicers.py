"""The methods of both gRPC services: each is a function in the module of its subject.

They are registered before the tokenizer is loaded. Until the service is there, the server admits
no call. A method that returns `Serialized` has made its response in a thread, as the event loop
would stand still meanwhile.
"""

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import grpc
from lockstep.v1 import tokenizer_service_pb2_grpc, vocabulary_admin_service_pb2_grpc

from tokenizer_service.rpcs import additions, chat, decode, encode, log, padding, vocabulary
from tokenizer_service.rpcs.service import Service

Method = Callable[[Any, Service], Any]
"""From a request, or a stream of them, to the awaitable response or the iterator of responses."""

_TOKENIZER_SERVICE: Mapping[str, Method] = {
    "Encode": encode.encode,
    "EncodeStream": encode.encode_stream,
    "CountTokens": encode.count_tokens,
    "Decode": decode.decode,
    "DecodeStream": decode.decode_stream,
    "Pad": padding.pad,
    "ApplyChatTemplate": chat.apply_chat_template,
    "ConvertTokens": vocabulary.convert_tokens,
    "GetTokenizerInfo": vocabulary.tokenizer_info,
    "GetVocabulary": vocabulary.entries_from,
    "GetTokenizerArtifact": vocabulary.tokenizer_artifact,
    "WatchVocabulary": vocabulary.watch,
}
_VOCABULARY_ADMIN_SERVICE: Mapping[str, Method] = {
    "AddTokens": additions.add_tokens,
    "SetSpecialTokens": additions.set_special_tokens,
    "ListRevisions": log.list_revisions,
    "VerifyRevisions": log.verify_revisions,
    "ExportRevisions": log.export_revisions,
    "ImportRevisions": log.import_revisions,
}


def register(server: grpc.aio.Server, service: asyncio.Future[Service]) -> None:
    """Registers both gRPC services.

    Args:
        server: where.
        service: what the methods work with, once it is loaded.

    Raises:
        AttributeError: the schema has a method that is not here.
    """
    tokenizer_service_pb2_grpc.add_TokenizerServiceServicer_to_server(
        _servicer(_TOKENIZER_SERVICE, service), server
    )
    vocabulary_admin_service_pb2_grpc.add_VocabularyAdminServiceServicer_to_server(
        _servicer(_VOCABULARY_ADMIN_SERVICE, service), server
    )


def _servicer(methods: Mapping[str, Method], service: asyncio.Future[Service]) -> Any:
    def handler(method: Method) -> Callable[[Any, object], Any]:
        return lambda request, context: method(request, service.result())

    return SimpleNamespace(**{name: handler(method) for name, method in methods.items()})
