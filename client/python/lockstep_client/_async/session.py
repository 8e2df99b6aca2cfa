"""A session, for asyncio."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Self, Unpack

from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_service_pb2 as model_pb

from lockstep_client._async.deltas import deltas
from lockstep_client._async.duplex import AsyncDuplex
from lockstep_client._async.session_calls import AsyncSessionCalls
from lockstep_client._async.step_stream import AsyncStepStream
from lockstep_client._async.streams import AsyncStream
from lockstep_client._calls.assembly import GenerationAssembler
from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.session_state import LOSSES, StepResult, Turn
from lockstep_client._requests import model as model_requests
from lockstep_client._requests.options import GenerateOptions, StepOptions
from lockstep_client._results.generation import Generation, TokenDelta
from lockstep_client._transport.closing import AsyncClosing
from lockstep_client._transport.endpoint import USE_DEFAULT, Timeout
from lockstep_client._values import durations
from lockstep_client._values.batch import Row
from lockstep_client._values.messages import build
from lockstep_client._values.one_line import described, some
from lockstep_client._values.tensors import Array
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import SessionNotFound


@with_keywords
class AsyncSession(AsyncSessionCalls, AsyncClosing):
    """Rows whose KV cache the server keeps, while the caller chooses the tokens.

    One call at a time may use it. Close it, or use it in an `async with` block: the
    server holds memory for it until then, or until it expires.
    """

    @property
    def session_token(self) -> str:
        """What tells a gateway which replica has the session, for `get_session` elsewhere."""
        return self._link.route.token

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.position)} rows"
        positions = some(self.position)
        where = f"{self.session_id} at {self._link.connection.endpoint.address}"
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
            SessionNotFound: it expired, or the server restarted; see `reopen`.
            SessionOnOtherReplica: another replica has it, which cannot be followed to.
            ResponseTooLarge: the answer does not fit a message; an answer of a `step_stream`
                may be larger.
        """
        request = self._step_request(rows, options)
        response = await self._call(lambda methods: methods.sessions.Step, request, timeout)
        return self._apply_step(request, response)

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

        def begin() -> AsyncDuplex[pb.StepStreamRequest, pb.StepStreamResponse]:
            link = self._link
            return AsyncDuplex(
                link.connection, link.methods.sessions.StepStream, timeout, link.route
            )

        return AsyncStepStream(self, begin)

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
        raises = model_requests.raises(options)
        turn = Turn(self._link.home.endpoint.streaming_timeout_s(timeout))

        async def generate() -> GenerationAssembler:
            assembler = GenerationAssembler(request, keep_scores=True, raises=raises)
            async for _ in self._deltas(request, assembler, turn):
                pass
            return assembler

        return self._generated(await self._lasting(generate, turn))

    def stream(
        self, *, timeout: Timeout = USE_DEFAULT, **options: Unpack[GenerateOptions]
    ) -> AsyncStream[TokenDelta, Generation]:
        """As `generate`, and yields tokens as they are chosen.

        Left before its end, it is undone: the rows are as they were. Once it has begun, it
        ends with its session, also with `reopen=True`.

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
        turn = Turn(self._link.home.endpoint.streaming_timeout_s(timeout))

        async def begin() -> tuple[AsyncGenerator[TokenDelta], TokenDelta | None]:
            new = self._deltas(request, assembler, turn)
            return new, await anext(new, None)

        new, first = await self._lasting(begin, turn)
        async with aclosing(new):
            if first is not None:
                yield first
            async for delta in new:
                yield delta
        self._generated(assembler)

    async def _deltas(
        self, request: model_pb.GenerateRequest, assembler: GenerationAssembler, turn: Turn
    ) -> AsyncGenerator[TokenDelta]:
        await self._settle(turn)
        request.session_id = self.session_id
        link = self._link
        new = deltas(
            link.connection, link.methods.model, request, assembler, turn.timeout_s, link.route
        )
        with self._leaving(overrun=True):
            async with aclosing(new):
                async for delta in new:
                    yield delta

    def _generated(self, assembler: GenerationAssembler) -> Generation:
        """Takes a generation that is complete.

        Raises:
            LockstepError: a row failed.
        """
        self._apply_generation(assembler.generation())
        return assembler.result()

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
        response = await self._call(lambda methods: methods.sessions.Truncate, request, timeout)
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
        response = await self._call(lambda methods: methods.sessions.Fork, request, timeout)
        fork = self._copy(response.session_ids[0], row_indices)
        fork._link = self._link.fork(fork.session_id)
        return fork

    async def select_rows(
        self, row_indices: Sequence[int], *, timeout: Timeout = USE_DEFAULT
    ) -> None:
        """Replaces the rows by a selection of them, which may drop, repeat and reorder.

        Args:
            row_indices: the rows to go on with, in this order.
            timeout: in seconds.
        """
        request = build(pb.SelectRowsRequest, session_id=self.session_id, row_indices=row_indices)
        response = await self._call(lambda methods: methods.sessions.SelectRows, request, timeout)
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
        response = await self._call(
            lambda methods: methods.sessions.RebindSession, request, timeout
        )
        return self._apply_rebind(response)

    async def token_ids(self, *, timeout: Timeout = USE_DEFAULT) -> list[list[int]]:
        """Returns the tokens of each row, prompt included, as the server has them."""
        request = pb.GetSessionRequest(session_id=self.session_id)
        response = await self._call(lambda methods: methods.sessions.GetSession, request, timeout)
        return [list(row.tokens.ids) for row in response.rows]

    async def touch(self, *, ttl_s: float | None = None, timeout: Timeout = USE_DEFAULT) -> None:
        """Postpones the expiry.

        Args:
            ttl_s: a new idle time, in seconds; the one so far unless given.
            timeout: in seconds.
        """
        request = pb.TouchSessionRequest(session_id=self.session_id, ttl=durations.message(ttl_s))
        await self._call(
            lambda methods: methods.sessions.TouchSession, request, timeout, settles=False
        )
        if ttl_s is not None:
            self._known.opening.ttl.CopyFrom(request.ttl)

    async def close(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """Frees what the server holds. Does nothing where the session is gone already.

        A call that was given up may still be using the session: it is waited for,
        at most `BUSY_LIMIT_S`.
        """
        if self.closed:
            return
        turn = Turn(self._link.home.endpoint.unary_timeout_s(timeout))
        request = pb.CloseSessionRequest(session_id=self.session_id)

        async def close() -> pb.CloseSessionResponse:
            return await self._once_free(
                lambda methods: methods.sessions.CloseSession, request, turn
            )

        # Expired, evicted or lost with the engine: nothing is held.
        with suppress(*LOSSES if self._reopens else (SessionNotFound,)):
            await self._link.reach(close)
        self.closed = True
