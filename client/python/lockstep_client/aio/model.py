"""The model service, for asyncio."""

from collections.abc import Sequence
from typing import Unpack

from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import model_info_service_pb2 as info_pb
from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceStub
from lockstep.v1.model_info_service_pb2_grpc import ModelInfoServiceStub
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from lockstep_client.aio.connection import AsyncConnection
from lockstep_client.aio.deltas import deltas
from lockstep_client.aio.session import AsyncSession
from lockstep_client.assembly import GenerationAssembler
from lockstep_client.batch import Prompts, Row
from lockstep_client.connection import USE_DEFAULT, Timeout
from lockstep_client.requests import model as requests
from lockstep_client.requests import session as session_requests
from lockstep_client.requests.model import GenerateOptions, ScoreOptions
from lockstep_client.requests.session import SessionOptions
from lockstep_client.results import scores as score_results
from lockstep_client.results.generation import Generation, TokenDelta
from lockstep_client.results.model_info import (
    Capabilities,
    Load,
    LogitsProcessor,
    ModelInfo,
    Plan,
)
from lockstep_client.results.scores import NextTokenScores, ScoredSequence
from lockstep_client.streams import AsyncStream


class AsyncModel:
    """As `Model`, for asyncio. Methods have the same names, keywords and errors."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = ModelServiceStub(connection.channel)
        self._sessions = LogitsSessionServiceStub(connection.channel)
        self._info = ModelInfoServiceStub(connection.channel)

    async def generate(
        self,
        prompts: Prompts,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """See `Model.generate`."""
        request = requests.generate(prompts, options)
        assembler = GenerationAssembler(request, keep_scores=True)
        async for _ in deltas(self._connection, self._stub, request, assembler, timeout):
            pass
        return assembler.result()

    def stream(
        self,
        prompts: Prompts,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream[TokenDelta, Generation]:
        """See `Model.stream`."""
        request = requests.generate(prompts, options)
        assembler = GenerationAssembler(request, keep_scores=False)
        return AsyncStream(
            deltas(self._connection, self._stub, request, assembler, timeout), assembler.result
        )

    async def open_session(
        self,
        prompts: Prompts,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[SessionOptions],
    ) -> AsyncSession:
        """See `Model.open_session`."""
        request = session_requests.open_session(prompts, options)
        response = await self._connection.unary(self._sessions.OpenSession, request, timeout)
        return AsyncSession(response, self._connection, self._sessions)

    async def get_session(self, session_id: str, *, timeout: Timeout = USE_DEFAULT) -> AsyncSession:
        """See `Model.get_session`."""
        request = session_pb.GetSessionRequest(session_id=session_id)
        response = await self._connection.unary(self._sessions.GetSession, request, timeout)
        found = AsyncSession.found(session_id, response)
        return AsyncSession(found, self._connection, self._sessions)

    async def score(
        self,
        prompts: Prompts,
        continuations: Sequence[Row] | None = None,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[ScoreOptions],
    ) -> list[ScoredSequence]:
        """See `Model.score`."""
        request = requests.score(prompts, continuations, options)
        response = await self._connection.unary(self._stub.Score, request, timeout)
        return score_results.scored_sequences(response)

    async def compute_logits(
        self,
        prompts: Prompts,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[ScoreOptions],
    ) -> NextTokenScores:
        """See `Model.compute_logits`."""
        request = requests.compute_logits(prompts, options)
        response = await self._connection.unary(self._stub.ComputeLogits, request, timeout)
        return score_results.next_token_scores(response)

    async def info(self, *, timeout: Timeout = USE_DEFAULT) -> ModelInfo:
        """See `Model.info`."""
        request = info_pb.GetModelInfoRequest()
        response = await self._connection.unary(self._info.GetModelInfo, request, timeout)
        return ModelInfo.from_message(response)

    async def capabilities(self, *, timeout: Timeout = USE_DEFAULT) -> Capabilities:
        """See `Model.capabilities`."""
        request = info_pb.GetCapabilitiesRequest()
        response = await self._connection.unary(self._info.GetCapabilities, request, timeout)
        return Capabilities.from_message(response)

    async def logits_processors(self, *, timeout: Timeout = USE_DEFAULT) -> list[LogitsProcessor]:
        """See `Model.logits_processors`."""
        request = info_pb.ListLogitsProcessorsRequest()
        response = await self._connection.unary(self._info.ListLogitsProcessors, request, timeout)
        return [LogitsProcessor.from_message(entry) for entry in response.processors]

    async def load(self, *, timeout: Timeout = USE_DEFAULT) -> Load:
        """See `Model.load`."""
        request = info_pb.GetLoadRequest()
        response = await self._connection.unary(self._info.GetLoad, request, timeout)
        return Load.from_message(response)

    async def validate(
        self,
        prompts: Prompts,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[GenerateOptions],
    ) -> Plan:
        """See `Model.validate`."""
        request = info_pb.ValidateRequestRequest(
            generate_request=requests.generate(prompts, options)
        )
        response = await self._connection.unary(self._info.ValidateRequest, request, timeout)
        return Plan.from_message(response)
