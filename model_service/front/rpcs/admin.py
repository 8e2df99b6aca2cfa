"""`ModelAdminService`: what an operator asks of a running server."""

from collections.abc import Callable

from lockstep.v1 import (
    model_admin_service_pb2,
    model_admin_service_pb2_grpc,
    vocabulary_pb2,
)

from model_service.front.rpcs import results
from model_service.front.served_model import ServedModel
from model_service.protocol import FlushPrefixCache
from rpc.handlers import Context
from wire.vocabulary import vocabulary_ref


class AdminServicer(model_admin_service_pb2_grpc.ModelAdminServiceServicer):
    """Privileged methods, a service of their own."""

    def __init__(
        self,
        model: ServedModel,
        *,
        report_paused: Callable[[bool], None],
    ) -> None:
        """Operates a model.

        Args:
            model: the model.
            report_paused: makes health say whether new work is taken.
        """
        self._model = model
        self._report_paused = report_paused

    async def GetVocabularyState(
        self, request: model_admin_service_pb2.GetVocabularyStateRequest, context: Context
    ) -> model_admin_service_pb2.GetVocabularyStateResponse:
        following = self._model.following
        return model_admin_service_pb2.GetVocabularyStateResponse(
            vocabulary=self._newest(),
            reserved_row_count=following.reserved_rows,
            added_rows_sha256=following.added_rows_sha256,
            follower_connected=following.connected,
            following=results.vocabulary_following(following),
        )

    async def FlushPrefixCache(
        self, request: model_admin_service_pb2.FlushPrefixCacheRequest, context: Context
    ) -> model_admin_service_pb2.FlushPrefixCacheResponse:
        flushed = await self._model.engine.ask(FlushPrefixCache())
        return model_admin_service_pb2.FlushPrefixCacheResponse(
            token_count=flushed.token_count, vocabulary=self._newest()
        )

    async def Drain(
        self, request: model_admin_service_pb2.DrainRequest, context: Context
    ) -> model_admin_service_pb2.DrainResponse:
        self._pause(True)
        return model_admin_service_pb2.DrainResponse(
            running_sequence_count=self._model.engine.num_unfinished_rows,
            vocabulary=self._newest(),
        )

    async def Resume(
        self, request: model_admin_service_pb2.ResumeRequest, context: Context
    ) -> model_admin_service_pb2.ResumeResponse:
        self._pause(False)
        return model_admin_service_pb2.ResumeResponse(vocabulary=self._newest())

    def _newest(self) -> vocabulary_pb2.VocabularyRef:
        return vocabulary_ref(self._model.vocabulary.newest)

    def _pause(self, paused: bool) -> None:
        self._model.paused = paused
        self._report_paused(paused)
