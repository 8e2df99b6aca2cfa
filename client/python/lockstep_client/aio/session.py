"""A session, for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from lockstep_client import durations
from lockstep_client.aio.connection import AsyncConnection, Request, Response
from lockstep_client.aio.deltas import deltas
from lockstep_client.aio.step_stream import AsyncStepStream
from lockstep_client.assembly import GenerationAssembler
from lockstep_client.batch import Row
from lockstep_client.connection import USE_DEFAULT, Timeout
from lockstep_client.exceptions import SessionBusy, SessionNotFound
from lockstep_client.requests.model import GenerateOptions
from lockstep_client.requests.session import StepOptions
from lockstep_client.results.generation import Generation, TokenDelta
from lockstep_client.session_state import BUSY_LIMIT_S, SessionState, StepResult, Turn
from lockstep_client.streams import AsyncStream
from lockstep_client.tensors import Array
from lockstep_client.vocabulary_ref import VocabularyRef

if TYPE_CHECKING:  # exists in the stub file only
    from grpc import aio
    from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceAsyncStub


class AsyncSession(SessionState):
    """As `Session`, for asyncio. Close it, or use it in an `async with` block."""

    def __init__(
        self,
        response: pb.OpenSessionResponse,
        connection: AsyncConnection,
        stub: "LogitsSessionServiceAsyncStub",
    ) -> None:
        super().__init__(response)
        self._connection = connection
        self._stub = stub
        self._model = ModelServiceStub(connection.channel)

    async def step(
        self,
        rows: Sequence[int | Row] | Array,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[StepOptions],
    ) -> StepResult:
        """See `Session.step`."""
        request = self.step_request(rows, options)
        response = await self._call(self._stub.Step, request, timeout)
        return self.apply_step(response, look_ahead=request.look_ahead)

    async def look_ahead(
        self,
        rows: Sequence[int | Row] | Array,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[StepOptions],
    ) -> StepResult:
        """See `Session.look_ahead`."""
        options["look_ahead"] = True
        return await self.step(rows, timeout=timeout, **options)

    def step_stream(self, *, timeout: Timeout = USE_DEFAULT) -> AsyncStepStream:
        """See `Session.step_stream`."""
        return AsyncStepStream(
            self, self._connection, self._stub, timeout, lambda: self._settle(Turn(BUSY_LIMIT_S))
        )

    async def generate(
        self, *, timeout: Timeout = USE_DEFAULT, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """See `Session.generate`."""
        request = self.generate_request(options)
        assembler = GenerationAssembler(request, keep_scores=True)
        async for _ in self._generate(request, assembler, timeout):
            pass
        return assembler.result()

    def stream(
        self, *, timeout: Timeout = USE_DEFAULT, **options: Unpack[GenerateOptions]
    ) -> AsyncStream[TokenDelta, Generation]:
        """See `Session.stream`."""
        request = self.generate_request(options)
        assembler = GenerationAssembler(request, keep_scores=False)
        return AsyncStream(self._generate(request, assembler, timeout), assembler.result)

    async def _generate(
        self, request: model_pb.GenerateRequest, assembler: GenerationAssembler, timeout: Timeout
    ) -> AsyncGenerator[TokenDelta]:
        turn = Turn(self._connection.endpoint.streaming_timeout_s(timeout))
        await self._settle(turn)
        new = deltas(self._connection, self._model, request, assembler, turn.timeout_s)
        with self.leaving(overrun=True):
            async with aclosing(new):
                async for delta in new:
                    yield delta
        self.apply_generation(assembler.result())

    async def truncate(
        self, positions: int | Sequence[int], *, timeout: Timeout = USE_DEFAULT
    ) -> None:
        """See `Session.truncate`."""
        request = self.truncate_request(positions)
        response = await self._call(self._stub.Truncate, request, timeout)
        self.apply_rows(response.rows)

    async def fork(
        self, row_indices: Sequence[int] = (), *, timeout: Timeout = USE_DEFAULT
    ) -> Self:
        """See `Session.fork`."""
        request = pb.ForkRequest(session_id=self.session_id, count=1, row_indices=row_indices)
        response = await self._call(self._stub.Fork, request, timeout)
        return self.copy(response.session_ids[0], row_indices)

    async def select_rows(
        self, row_indices: Sequence[int], *, timeout: Timeout = USE_DEFAULT
    ) -> None:
        """See `Session.select_rows`."""
        request = pb.SelectRowsRequest(session_id=self.session_id, row_indices=row_indices)
        response = await self._call(self._stub.SelectRows, request, timeout)
        self.apply_selection(response, row_indices)

    async def rebind(
        self, vocabulary: VocabularyRef | None = None, *, timeout: Timeout = USE_DEFAULT
    ) -> VocabularyRef:
        """Moves the session to a newer revision of the vocabulary, and so lets it use newer ids.

        Tokens and KV cache stay. What was known about the next token is forgotten.

        Args:
            vocabulary: the revision, for example that of a batch; the newest that the
                server has unless given.
            timeout: in seconds.

        Returns:
            The vocabulary that the session is on now.
        """
        request = self.rebind_request(vocabulary)
        return self.apply_rebind(await self._call(self._stub.RebindSession, request, timeout))

    async def token_ids(self, *, timeout: Timeout = USE_DEFAULT) -> list[list[int]]:
        """See `Session.token_ids`."""
        request = pb.GetSessionRequest(session_id=self.session_id)
        response = await self._call(self._stub.GetSession, request, timeout)
        return [list(row.tokens.ids) for row in response.rows]

    async def touch(self, *, ttl_s: float | None = None, timeout: Timeout = USE_DEFAULT) -> None:
        """See `Session.touch`."""
        request = pb.TouchSessionRequest(session_id=self.session_id, ttl=durations.message(ttl_s))
        await self._connection.unary(self._stub.TouchSession, request, timeout)

    async def close(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """See `Session.close`."""
        if self.closed:
            return
        turn = Turn(self._connection.endpoint.unary_timeout_s(timeout))
        request = pb.CloseSessionRequest(session_id=self.session_id)
        with suppress(SessionNotFound):  # expired, evicted or lost with the engine: nothing is held
            await self._once_free(self._stub.CloseSession, request, turn)
        self.closed = True

    async def _call(
        self,
        method: "aio.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout,
    ) -> Response:
        """Calls a method that uses the session, once no call that was left does."""
        turn = Turn(self._connection.endpoint.unary_timeout_s(timeout))
        await self._settle(turn)
        with self.leaving():
            return await self._connection.unary(method, request, turn.timeout_s)

    async def _settle(self, turn: Turn) -> None:
        """Waits until a call that was left is over, and undoes it if it was a generation."""
        if not self.unsettled:
            return
        if self.overrun:
            await self._once_free(self._stub.Truncate, self.undo_request(), turn)
        else:
            request = pb.GetSessionRequest(session_id=self.session_id)
            await self._once_free(self._stub.GetSession, request, turn)
        self.settled()

    async def _once_free(
        self, method: "aio.UnaryUnaryMultiCallable[Request, Response]", request: Request, turn: Turn
    ) -> Response:
        while True:
            try:
                return await self._connection.unary(method, request, turn.timeout_s)
            except SessionBusy as error:
                await asyncio.sleep(turn.pause_s(error))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
