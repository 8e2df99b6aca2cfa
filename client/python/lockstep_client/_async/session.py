"""A session, for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Self, Unpack

from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from lockstep_client._async.deltas import deltas
from lockstep_client._async.duplex import AsyncDuplex
from lockstep_client._async.step_stream import AsyncStepStream
from lockstep_client._async.streams import AsyncStream
from lockstep_client._calls.assembly import GenerationAssembler
from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.session_state import BUSY_LIMIT_S, SessionState, StepResult, Turn
from lockstep_client._requests import model as model_requests
from lockstep_client._requests.options import GenerateOptions, StepOptions
from lockstep_client._results.generation import Generation, TokenDelta
from lockstep_client._transport.async_connection import AsyncConnection, Request, Response
from lockstep_client._transport.closing import AsyncClosing
from lockstep_client._transport.endpoint import USE_DEFAULT, Timeout
from lockstep_client._values import durations
from lockstep_client._values.batch import Row
from lockstep_client._values.messages import build
from lockstep_client._values.one_line import described, some
from lockstep_client._values.tensors import Array
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import SessionBusy, SessionNotFound

if TYPE_CHECKING:  # what has type parameters in the stub files only
    from grpc.aio import UnaryUnaryMultiCallable
    from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceAsyncStub


@with_keywords
class AsyncSession(SessionState, AsyncClosing):
    """Rows whose KV cache the server keeps, while the caller chooses the tokens.

    One call at a time may use it. Close it, or use it in an `async with` block: the
    server holds memory for it until then, or until it expires.
    """

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

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.position)} rows"
        positions = some(self.position)
        where = f"{self.session_id} at {self._connection.endpoint.address}"
        return described(self, f"{where}: {state}, positions {positions}")

    async def step(
        self,
        rows: Sequence[int | Row] | Array,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[StepOptions],
    ) -> StepResult:
        """Appends tokens; `.logits`, `.scores` and `.position` are then as of the last of them.

        The step is applied at most once: it says where the rows were before.

        Args:
            rows: for each row a token id or a list of them; an empty list leaves
                the row alone. An array is `[B]` or `[B, T]` of any integer type,
                as `session.logits.argmax(-1)` is.
            timeout: in seconds.
            **options: see `StepOptions`.

        Raises:
            PositionConflict: the session is not where this client left it.
            SessionNotFound: it expired, or the server restarted.
            ResponseTooLarge: the answer does not fit a message; an answer of a `step_stream`
                may be larger.
        """
        request = self._step_request(rows, options)
        response = await self._call(self._stub.Step, request, timeout)
        return self._apply_step(response, look_ahead=request.look_ahead)

    async def look_ahead(
        self,
        rows: Sequence[int | Row] | Array,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[StepOptions],
    ) -> StepResult:
        """Steps, and forgets the ids again: the session is as before, `.logits` too.

        The result has the distributions. Parameters as of `step`: an array of rows is
        `[B]` or `[B, T]` of any integer type.
        """
        options["look_ahead"] = True
        return await self.step(rows, timeout=timeout, **options)

    def step_stream(self, *, timeout: Timeout = USE_DEFAULT) -> AsyncStepStream:
        """Opens a stream of steps, which saves the cost of a call for each. Close it.

        Args:
            timeout: of the whole stream, in seconds.
        """
        call = AsyncDuplex(self._connection, self._stub.StepStream, timeout)
        return AsyncStepStream(self, call, lambda: self._settle(Turn(BUSY_LIMIT_S)))

    async def generate(
        self, *, timeout: Timeout = USE_DEFAULT, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Lets the server choose tokens, from where the rows are, until each has ended.

        Keywords that are not given are as in the session. What follows the new
        tokens is not known before the next step.

        Args:
            timeout: in seconds; the client's `stream_timeout` unless given.
            **options: see `GenerateOptions`.
        """
        request = self._generate_request(options)
        assembler = GenerationAssembler(
            request, keep_scores=True, raises=model_requests.raises(options)
        )
        async for _ in self._generate(request, assembler, timeout):
            pass
        return assembler.result()

    def stream(
        self, *, timeout: Timeout = USE_DEFAULT, **options: Unpack[GenerateOptions]
    ) -> AsyncStream[TokenDelta, Generation]:
        """As `generate`, and yields tokens as they are chosen.

        Left before its end, it is undone: the rows are as they were.

        Args:
            timeout: of the whole stream, in seconds.
            **options: see `GenerateOptions`.

        Returns:
            The tokens; its `.result` has what `generate` returns, without the rows of
            logits and scores, which only the deltas hold.
        """
        request = self._generate_request(options)
        assembler = GenerationAssembler(
            request, keep_scores=False, raises=model_requests.raises(options)
        )
        return AsyncStream(self._generate(request, assembler, timeout), assembler.result)

    async def _generate(
        self, request: model_pb.GenerateRequest, assembler: GenerationAssembler, timeout: Timeout
    ) -> AsyncGenerator[TokenDelta]:
        turn = Turn(self._connection.endpoint.streaming_timeout_s(timeout))
        await self._settle(turn)
        new = deltas(self._connection, self._model, request, assembler, turn.timeout_s)
        with self._leaving(overrun=True):
            async with aclosing(new):
                async for delta in new:
                    yield delta
        self._apply_generation(assembler.generation())
        assembler.result()  # raises what a row failed with

    async def truncate(
        self, positions: int | Sequence[int], *, timeout: Timeout = USE_DEFAULT
    ) -> None:
        """Forgets tokens of every row from a position on, or of each from its own.

        What was known about the next token is forgotten too.

        Args:
            positions: number of tokens to keep, of all rows or of each.
            timeout: in seconds.
        """
        request = self._truncate_request(positions)
        response = await self._call(self._stub.Truncate, request, timeout)
        self._apply_rows(response.rows)

    async def fork(
        self, row_indices: Sequence[int] = (), *, timeout: Timeout = USE_DEFAULT
    ) -> Self:
        """Copies the session, or some of its rows, to a session of its own.

        Args:
            row_indices: the rows to copy, in this order; all unless given.
            timeout: in seconds.

        Returns:
            The copy, to be closed by itself.
        """
        request = build(
            pb.ForkRequest, session_id=self.session_id, count=1, row_indices=row_indices
        )
        response = await self._call(self._stub.Fork, request, timeout)
        return self._copy(response.session_ids[0], row_indices)

    async def select_rows(
        self, row_indices: Sequence[int], *, timeout: Timeout = USE_DEFAULT
    ) -> None:
        """Replaces the rows by a selection of them, which may drop, repeat and reorder.

        Args:
            row_indices: the rows to go on with, in this order.
            timeout: in seconds.
        """
        request = build(pb.SelectRowsRequest, session_id=self.session_id, row_indices=row_indices)
        response = await self._call(self._stub.SelectRows, request, timeout)
        self._apply_selection(response, row_indices)

    async def rebind(
        self, vocabulary: VocabularyRef | None = None, *, timeout: Timeout = USE_DEFAULT
    ) -> VocabularyRef:
        """Moves the session to a newer revision of the vocabulary, and so lets it use newer ids.

        Tokens and KV cache stay. What was known about the next token is forgotten.

        Args:
            vocabulary: the revision, for example a batch's; the newest that the
                server has unless given.
            timeout: in seconds.

        Returns:
            The vocabulary that the session is on now.
        """
        request = self._rebind_request(vocabulary)
        return self._apply_rebind(await self._call(self._stub.RebindSession, request, timeout))

    async def token_ids(self, *, timeout: Timeout = USE_DEFAULT) -> list[list[int]]:
        """Returns the tokens of each row, prompt included, as the server has them."""
        request = pb.GetSessionRequest(session_id=self.session_id)
        response = await self._call(self._stub.GetSession, request, timeout)
        return [list(row.tokens.ids) for row in response.rows]

    async def touch(self, *, ttl_s: float | None = None, timeout: Timeout = USE_DEFAULT) -> None:
        """Postpones the expiry.

        Args:
            ttl_s: a new idle time, in seconds; the one so far unless given.
            timeout: in seconds.
        """
        self._check_open()
        request = pb.TouchSessionRequest(session_id=self.session_id, ttl=durations.message(ttl_s))
        await self._connection.unary(self._stub.TouchSession, request, timeout)

    async def close(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """Frees what the server holds. Does nothing where the session is gone already.

        A call that was given up may still be using the session: it is waited for,
        at most `BUSY_LIMIT_S`.
        """
        if self.closed:
            return
        turn = Turn(self._connection.endpoint.unary_timeout_s(timeout))
        request = pb.CloseSessionRequest(session_id=self.session_id)
        with suppress(SessionNotFound):  # expired, evicted or lost with the engine: nothing is held
            await self._once_free(self._stub.CloseSession, request, turn)
        self.closed = True

    async def _call(
        self,
        method: "UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: Timeout,
    ) -> Response:
        """Calls a method that uses the session, once no call that was left does."""
        turn = Turn(self._connection.endpoint.unary_timeout_s(timeout))
        await self._settle(turn)
        with self._leaving():
            return await self._connection.unary(method, request, turn.timeout_s)

    async def _settle(self, turn: Turn) -> None:
        """Waits until a call that was left is over, and undoes it if it was a generation."""
        self._check_open()
        if not self._unsettled:
            return
        if self._overrun:
            await self._once_free(self._stub.Truncate, self._undo_request(), turn)
        else:
            request = pb.GetSessionRequest(session_id=self.session_id)
            await self._once_free(self._stub.GetSession, request, turn)
        self._settled()

    async def _once_free(
        self, method: "UnaryUnaryMultiCallable[Request, Response]", request: Request, turn: Turn
    ) -> Response:
        while True:
            try:
                return await self._connection.unary(method, request, turn.timeout_s)
            except SessionBusy as error:
                await asyncio.sleep(turn.pause_s(error))
