"""The model service, for asyncio."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Literal, Unpack

from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import model_info_service_pb2 as info_pb
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1.model_info_service_pb2_grpc import ModelInfoServiceStub
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from lockstep_client._async.deltas import deltas
from lockstep_client._async.row_calls import call_rows, time_left
from lockstep_client._async.session import AsyncSession
from lockstep_client._async.session_link import AsyncSessionLink
from lockstep_client._async.streams import AsyncStream
from lockstep_client._calls import row_requests, row_results
from lockstep_client._calls.argument import SHOWN, Argument
from lockstep_client._calls.assembly import GenerationAssembler
from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.row_requests import RowLimits
from lockstep_client._calls.session_tokens import SessionTokens
from lockstep_client._calls.windows import Windows
from lockstep_client._requests import generation_config
from lockstep_client._requests import model as requests
from lockstep_client._requests import session as session_requests
from lockstep_client._requests.options import (
    DistributionOptions,
    GenerateOptions,
    Ids,
    ScoreOptions,
    SessionOptions,
)
from lockstep_client._results import scores as score_results
from lockstep_client._results.distribution import Distribution, distributions
from lockstep_client._results.generation import Generation, TokenDelta
from lockstep_client._results.model_info import Capabilities, Load, LogitsProcessor, ModelInfo, Plan
from lockstep_client._results.scores import NextTokenScores, ScoredSequence
from lockstep_client._transport.async_connection import AsyncConnection
from lockstep_client._transport.async_workers import turn
from lockstep_client._transport.endpoint import USE_DEFAULT, Timeout
from lockstep_client._transport.room import Room
from lockstep_client._transport.route import Route
from lockstep_client._values import batch as batches
from lockstep_client._values.batch import Prompts, Row
from lockstep_client._values.messages import build
from lockstep_client._values.one_line import described


@with_keywords
class AsyncModel:
    """Runs the model.

    Every method takes a `timeout` in seconds, None for none, and raises
    `LockstepError` when its call fails.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = ModelServiceStub(connection.channel)
        self._tokens = SessionTokens()
        self._info = ModelInfoServiceStub(connection.channel)
        self._capabilities: Capabilities | None = None
        self._room = Room()

    def __repr__(self) -> str:
        return described(self, f"at {self._connection.endpoint.address}")

    async def generate(
        self,
        prompts: Prompts | None = None,
        *,
        progress: bool = False,
        concurrency: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """Generates sequences and returns them when all have ended.

        Any number of prompts: they go in as many requests as needed. Rows of logits and
        scores of any number and size arrive in pieces: no message limit applies to the
        result. A sequence that fails by itself raises its error once all of its request
        have ended, or with `errors="return"` has it in `details`.

        Args:
            prompts: a batch, rows of ids, or a mapping with `input_ids` and
                `attention_mask`; or these as keywords, as of `**batch`.
            progress: whether a bar shows how many prompts are done.
            concurrency: most requests at a time, see `ManyOptions`.
            timeout: in seconds; the client's `stream_timeout` unless given.
            **options: see `GenerateOptions`.

        Raises:
            InvalidField: a keyword is out of range or contradicts another; `violations`
                says which.
            ContextLengthExceeded: prompt and new tokens do not fit the context.
            VocabularyMismatch: the batch belongs to another vocabulary.
        """
        request = requests.generate(prompts, options)
        raises = requests.raises(options)
        per_row = row_requests.sequences_per_row(request.generation_config)

        async def generate(part: model_pb.GenerateRequest, timeout: Timeout) -> Generation:
            assembler, route = GenerationAssembler(part, keep_scores=True, raises=raises), Route()
            left = time_left(self._connection.endpoint.streaming_timeout_s(timeout))
            async with self._places(row_requests.num_sequences(part), left):
                new = deltas(self._connection, self._stub, part, assembler, left(), route)
                async for _ in new:
                    pass
            self._tokens.keep(assembler, route)
            return assembler.result()

        async def limits(timeout: Timeout) -> RowLimits:
            return RowLimits.of_sequences(await self._limits(timeout), per_row)

        many = row_results.many(options.get("errors"), progress, concurrency)
        parts = await call_rows("generate", request, generate, limits, timeout, many)
        return row_results.generation(parts, batches.rows_of(request.prompt))

    def stream(
        self,
        prompts: Prompts | None = None,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream[TokenDelta, Generation]:
        """Generates sequences and yields tokens as they are chosen.

        Args:
            prompts: as for `generate`.
            timeout: of the whole stream, in seconds.
            **options: see `GenerateOptions`.

        Returns:
            The tokens, after which the error of a sequence is raised as by `generate`; its
            `.result` has what `generate` returns, without the rows of logits and scores,
            which only the deltas hold.
        """
        request = requests.generate(prompts, options)
        assembler = GenerationAssembler(request, keep_scores=False, raises=requests.raises(options))
        return AsyncStream(self._deltas(request, assembler, timeout), assembler.result)

    async def open_session(
        self,
        prompts: Prompts | None = None,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[SessionOptions],
    ) -> AsyncSession:
        """Opens a session, in which the caller chooses the tokens.

        Args:
            prompts: as for `generate`, one row of the session each.
            timeout: in seconds.
            **options: see `SessionOptions`.

        Returns:
            The session, to be closed. `.logits` are those after the prompts.
        """
        request = session_requests.open_session(prompts, options)
        link = AsyncSessionLink(self._connection, Route())
        response = await self._connection.unary(
            link.methods.sessions.OpenSession, request, timeout, route=link.route
        )
        if request.generation_config.HasField("seed"):
            generation_config.warn_of_unused_seed(response.effective_config)
        return AsyncSession(request, response, link, reopens=bool(options.get("reopen")))

    async def get_session(
        self,
        session_id: str,
        *,
        session_token: str = "",
        reopen: bool = False,
        timeout: Timeout = USE_DEFAULT,
    ) -> AsyncSession:
        """Returns a session that exists: one that a generation left behind, or an earlier client.

        What follows its tokens is not known before its next step.

        Args:
            session_id: its name.
            session_token: its `session_token`, if it was not this client that had it; a
                gateway may need it to find the session's replica.
            reopen: see `SessionOptions`.
            timeout: in seconds.

        Raises:
            SessionNotFound: it does not exist, or not any more.
            SessionOnOtherReplica: another replica has it, which cannot be followed to.
        """
        request = build(session_pb.GetSessionRequest, session_id=session_id)
        token = session_token or self._tokens.get(session_id)
        link = AsyncSessionLink(self._connection, Route(session_id, token))
        left = time_left(self._connection.endpoint.unary_timeout_s(timeout))

        async def get() -> session_pb.GetSessionResponse:
            return await link.connection.unary(
                link.methods.sessions.GetSession, request, left(), route=link.route
            )

        found = AsyncSession._found(session_id, await link.reach(get))
        return AsyncSession(session_pb.OpenSessionRequest(), found, link, reopens=reopen)

    async def score(
        self,
        prompts: Prompts | None = None,
        continuations: Sequence[Row] | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        errors: Literal["raise", "return"] = "raise",
        progress: bool = False,
        concurrency: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[ScoreOptions],
    ) -> list[ScoredSequence]:
        """Computes the probabilities of given tokens.

        Args:
            prompts: as for `generate`: contexts, or what is scored itself.
            continuations: what is scored after each prompt.
            window: most tokens that the model sees at once: a row may then be longer than its
                context. Unset means that a row is scored as a whole.
            stride: how far a window is moved: each token is scored after at least
                `window - stride` others, where there are as many. Half a window unless given.
            errors: `return` has the error of a row in the place of its result, see `ManyOptions`.
            progress: whether a bar shows how many prompts are done.
            concurrency: most requests at a time, see `ManyOptions`.
            timeout: in seconds; the client's `stream_timeout` unless given.
            **options: see `ScoreOptions`.

        Returns:
            One result per prompt.
        """

        async def score(part: model_pb.ScoreRequest, timeout: Timeout) -> list[ScoredSequence]:
            left = time_left(self._connection.endpoint.streaming_timeout_s(timeout))
            async with self._places(row_requests.num_sequences(part), left):
                response = await self._connection.unary(self._stub.Score, part, left(), long=True)
            return score_results.scored_sequences(response)

        async def limits(timeout: Timeout) -> RowLimits:
            return RowLimits.of_sequences(await self._limits(timeout)).of_length(windows.longest)

        windows = Windows(requests.score(prompts, continuations, options), window, stride)
        many = row_results.many(errors, progress, concurrency)
        parts = await call_rows(
            "score", windows.request, score, limits, timeout, many, windows.row_numbers
        )
        return windows.joined(row_results.listed(parts))

    async def compute_logits(
        self,
        prompts: Prompts | None = None,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[ScoreOptions],
    ) -> NextTokenScores:
        """Computes the distribution after each prompt; the server keeps nothing.

        Args:
            prompts: as for `generate`.
            timeout: in seconds.
            **options: see `ScoreOptions`.
        """
        request = requests.compute_logits(prompts, options)
        response = await self._connection.unary(self._stub.ComputeLogits, request, timeout)
        return score_results.next_token_scores(response)

    async def distribution(
        self,
        prompts: Prompts | None = None,
        *,
        candidates: int | Ids = 10,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[DistributionOptions],
    ) -> list[Distribution]:
        """Shows what `generate` would choose the next token from, and what each processor does.

        Args:
            prompts: as for `generate`.
            candidates: how many tokens are shown: the most probable ones of the model, and
                as many of those after the processors; or the ids to show.
            timeout: in seconds.
            **options: see `DistributionOptions`; what is not given is the model's default.

        Returns:
            One distribution for each prompt, with the ids of tokens; `Lockstep.distribution`
            adds what they stand for.
        """
        request = requests.distribution(prompts, candidates, options)
        with Argument("candidates", fields=SHOWN).named():
            response = await self._connection.unary(self._stub.ComputeLogits, request, timeout)
        return distributions(response)

    async def info(self, *, timeout: Timeout = USE_DEFAULT) -> ModelInfo:
        """Describes the model."""
        request = info_pb.GetModelInfoRequest()
        response = await self._connection.unary(self._info.GetModelInfo, request, timeout)
        return ModelInfo.from_message(response)

    async def capabilities(self, *, timeout: Timeout = USE_DEFAULT) -> Capabilities:
        """Says what the server supports, and its limits."""
        request = info_pb.GetCapabilitiesRequest()
        response = await self._connection.unary(self._info.GetCapabilities, request, timeout)
        return Capabilities.from_message(response)

    async def logits_processors(self, *, timeout: Timeout = USE_DEFAULT) -> list[LogitsProcessor]:
        """Lists what the keyword `processors` can name, in the default order."""
        request = info_pb.ListLogitsProcessorsRequest()
        response = await self._connection.unary(self._info.ListLogitsProcessors, request, timeout)
        return [LogitsProcessor.from_message(entry) for entry in response.processors]

    async def load(self, *, timeout: Timeout = USE_DEFAULT) -> Load:
        """Says how busy the server is."""
        request = info_pb.GetLoadRequest()
        response = await self._connection.unary(self._info.GetLoad, request, timeout)
        return Load.from_message(response)

    async def validate(
        self,
        prompts: Prompts | None = None,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[GenerateOptions],
    ) -> Plan:
        """Checks what `generate` would be asked, without running it. Arguments as of `generate`.

        Returns:
            How it would run.

        Raises:
            ServiceError: what `generate` would raise before anything runs.
        """
        request = info_pb.ValidateRequestRequest(
            generate_request=requests.generate(prompts, options)
        )
        response = await self._connection.unary(self._info.ValidateRequest, request, timeout)
        return Plan.from_message(response)

    async def _deltas(
        self, request: model_pb.GenerateRequest, assembler: GenerationAssembler, timeout: Timeout
    ) -> AsyncGenerator[TokenDelta]:
        route = Route()
        new = deltas(self._connection, self._stub, request, assembler, timeout, route)
        async with aclosing(new):
            async for delta in new:
                yield delta
        self._tokens.keep(assembler, route)
        assembler.result()  # raises what a sequence failed with

    async def _limits(self, timeout: Timeout) -> Capabilities:
        if self._capabilities is None:  # calls at the same time ask each within its own timeout
            self._capabilities = await self.capabilities(timeout=timeout)
        return self._capabilities

    @asynccontextmanager
    async def _places(self, count: int, left: Callable[[], float | None]) -> AsyncIterator[None]:
        """Waits until the service admits more sequences of this client, in order of arrival."""
        if self._room.busy:
            self._room.capacity = row_requests.admitted(await self._limits(left()))
        async with turn(self._room, count, left(), self._connection.endpoint.peer):
            yield
