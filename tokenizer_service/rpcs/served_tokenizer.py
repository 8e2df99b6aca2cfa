"""What the methods of `lockstep.v1.TokenizerService` work with."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from lockstep.v1 import tokenizer_service_pb2_grpc

from tokenizer_service.chat.chat import ChatTemplates
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.rpcs.request_fields import RequestLimits
from tokenizer_service.text.tokenizer_files import TokenizerFiles
from tokenizer_service.worker_pool import WorkerPool

if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext


@dataclass(frozen=True, slots=True)
class ServedTokenizer:
    """The parts of one running service.

    Attributes:
        files: what revision 0 was made of.
        vocabulary: the tokenizer that serves now.
        templates: its chat templates.
        pool: where work off the event loop runs.
        metrics: what is counted.
        limits: what requests may ask for.
        max_response_bytes: the largest response that is sent.
        draining: set when the server shuts down; ends streams that would never end.
    """

    files: TokenizerFiles
    vocabulary: LiveVocabulary
    templates: ChatTemplates
    pool: WorkerPool
    metrics: TokenizerMetrics
    limits: RequestLimits
    max_response_bytes: int
    draining: asyncio.Event


class TokenizerMethods(tokenizer_service_pb2_grpc.TokenizerServiceServicer):
    """Base of the two halves of the servicer.

    It is registered before the tokenizer is loaded. Until `serve`, the server admits
    no call.
    """

    def serve(self, served: ServedTokenizer) -> None:
        """Provides what the methods work with."""
        self._files = served.files
        self._vocabulary = served.vocabulary
        self._templates = served.templates
        self._pool = served.pool
        self._metrics = served.metrics
        self._limits = served.limits
        self._max_response_bytes = served.max_response_bytes
        self._draining = served.draining
