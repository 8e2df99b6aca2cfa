"""`LogitsSessionService`: the client chooses the tokens, the server keeps the KV cache."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
from lockstep.v1 import (
    generation_pb2,
    logits_session_service_pb2,
    logits_session_service_pb2_grpc,
    model_service_pb2,
    tokens_pb2,
    vocabulary_pb2,
)

from model_service.front import gen_ai
from model_service.front.checks.opening import AskedOpening
from model_service.front.checks.prompts import read_prompts
from model_service.front.checks.sessions import SessionTerms, read_fork, read_origins
from model_service.front.rpcs import results
from model_service.front.rpcs.step_stream import StepWriter
from model_service.front.rpcs.steps import Steps
from model_service.front.served_model import ServedModel
from model_service.front.sessions.changes import SessionCalls
from model_service.front.sessions.registry import SessionRegistry
from model_service.front.sessions.session import Session
from model_service.protocol import DescribeSession
from model_service.protocol.generation import ScoreSelection
from rpc.errors import InvalidField
from rpc.handlers import Context
from rpc.lifecycle import Lifecycle
from rpc.streams import until_drained
from wire import times
from wire.pages import read_page
from wire.prompts import Bounds
from wire.violations import Violations
from wire.vocabulary import vocabulary_ref

_OPENING_REMEDY = (
    "Ask for fewer ids, fewer positions or a smaller dtype, or open the session with fewer tokens "
    "and give the others by StepStream with accept_chunks."
)


class SessionServicer(logits_session_service_pb2_grpc.LogitsSessionServiceServicer):
    """Parses, delegates and formats."""

    def __init__(
        self,
        model: ServedModel,
        sessions: SessionRegistry,
        terms: SessionTerms,
        *,
        lifecycle: Lifecycle,
    ) -> None:
        """Serves sessions of a model.

        Args:
            model: the model.
            sessions: the open sessions.
            terms: what a session may ask for.
            lifecycle: of the server, whose end streams and steps are told.
        """
        self._model = model
        self._sessions = sessions
        self._calls = SessionCalls(model.engine, sessions)
        self._steps = Steps(model, sessions, self._calls, lifecycle)
        self._terms = terms
        self._draining = lifecycle.draining

    async def OpenSession(
        self, request: logits_session_service_pb2.OpenSessionRequest, context: Context
    ) -> logits_session_service_pb2.OpenSessionResponse:
        with self._model.metrics.generations.count_rejections():
            self._model.check_open()
            violations = Violations()
            ttl_s = self._terms.ttl_s
            if request.HasField("ttl"):
                ttl_s = self._terms.read_ttl(request.ttl, violations)
            vocabulary = await self._model.resolve_vocabulary(request)
            asked = _asked(request, self._model.bounds, self._terms, violations)
            plan = self._model.plan(asked, vocabulary)
            self._model.quotas.tokens.check(plan.num_prompt_tokens)
            session, command = Session(plan, plan.command.selection, ttl_s), plan.command
            if asked.origins:  # their caller has what was returned about them
                command = msgspec.structs.replace(command, selection=ScoreSelection())
            else:
                self._model.response_limits.check_message(plan.response_bytes, _OPENING_REMEDY)
            answer = await self._sessions.open(session, command)
            num_tokens = plan.num_prompt_tokens + len(answer.sampled_token_ids)
            self._model.quotas.tokens.use(num_tokens)
        self._model.metrics.generations.admitted("open_session", plan.prompt_lengths)
        gen_ai.describe_request(self._model.name, "open_session")
        self._model.metrics.generations.generated(answer.sampled_token_ids)
        return logits_session_service_pb2.OpenSessionResponse(
            session_id=session.session_id,
            rows=[
                results.opened_row(row, spec)
                for row, spec in zip(answer.rows, plan.sequences, strict=True)
            ],
            scores=[
                model_service_pb2.PositionScoresList(
                    scores=[results.position_scores(scores) for scores in row.scores]
                )
                for row in answer.rows
                if not asked.origins
            ],
            vocabulary=_vocabulary(session),
            effective_config=session.plan.effective_config,
            expire_time=times.timestamp(session.expires_at),
            kv_bytes=session.kv_bytes,
            usage=generation_pb2.Usage(
                prompt_token_count=plan.num_prompt_tokens,
                cached_prompt_token_count=answer.cached_tokens,
            ),
            determinism=results.determinism(self._model.engine.info, self._model.fingerprint),
            max_length=session.max_length,
        )

    async def Step(
        self, request: logits_session_service_pb2.StepRequest, context: Context
    ) -> logits_session_service_pb2.StepResponse:
        return await self._steps.answer(request)

    async def StepStream(
        self,
        request_iterator: AsyncIterator[logits_session_service_pb2.StepStreamRequest],
        context: Context,
    ) -> AsyncIterator[logits_session_service_pb2.StepStreamResponse]:
        session_id = ""
        writer = StepWriter(self._model.response_limits.max_chunk_bytes)
        async with aclosing(until_drained(request_iterator, self._draining)) as requests:
            async for message in requests:
                step = message.step
                session_id = session_id or step.session_id
                if not session_id:
                    raise InvalidField("step.session_id", "is required in the first message")
                if step.session_id not in {"", session_id}:
                    raise InvalidField(
                        "step.session_id", "must equal the one of the first message, or be empty"
                    )
                step.session_id = session_id
                write_row = writer.write_row if message.accept_chunks else None
                answer = await self._steps.answer(step, path="step.", write_row=write_row)
                for response in writer.messages(answer, packed=message.accept_packed_chunks):
                    yield response

    async def Truncate(
        self, request: logits_session_service_pb2.TruncateRequest, context: Context
    ) -> logits_session_service_pb2.TruncateResponse:
        session = await self._calls.tasks.to_the_end(
            self._calls.truncate(request.session_id, list(request.positions))
        )
        return logits_session_service_pb2.TruncateResponse(
            rows=_rows(session), vocabulary=_vocabulary(session)
        )

    async def Fork(
        self, request: logits_session_service_pb2.ForkRequest, context: Context
    ) -> logits_session_service_pb2.ForkResponse:
        with self._model.metrics.generations.count_rejections():
            self._model.check_open()
            with self._sessions.use(request.session_id) as session:
                rows, count = read_fork(
                    request,
                    num_rows=session.num_rows,
                    max_rows=self._model.limits.max_sequences_per_call,
                )
                forked = await self._calls.fork(session, rows, count)
        return logits_session_service_pb2.ForkResponse(
            session_ids=forked.session_ids,
            shared_kv_bytes=0,
            copied_kv_bytes=forked.copied_kv_bytes,
            vocabulary=_vocabulary(session),
        )

    async def SelectRows(
        self, request: logits_session_service_pb2.SelectRowsRequest, context: Context
    ) -> logits_session_service_pb2.SelectRowsResponse:
        session = await self._calls.tasks.to_the_end(
            self._calls.select_rows(
                request.session_id,
                list(request.row_indices),
                max_rows=self._model.limits.max_sequences_per_call,
            )
        )
        return logits_session_service_pb2.SelectRowsResponse(
            rows=_rows(session), vocabulary=_vocabulary(session)
        )

    async def RebindSession(
        self, request: logits_session_service_pb2.RebindSessionRequest, context: Context
    ) -> logits_session_service_pb2.RebindSessionResponse:
        target = await self._model.resolve_vocabulary(request)
        rebound = await self._calls.tasks.to_the_end(self._calls.rebind(request.session_id, target))
        return logits_session_service_pb2.RebindSessionResponse(
            vocabulary=_vocabulary(rebound.session),
            previous_vocabulary=vocabulary_ref(rebound.previous),
            rows=_rows(rebound.session),
            expire_time=times.timestamp(rebound.session.expires_at),
        )

    async def GetSession(
        self, request: logits_session_service_pb2.GetSessionRequest, context: Context
    ) -> logits_session_service_pb2.GetSessionResponse:
        with self._sessions.use(request.session_id) as session:
            description = await self._model.engine.ask(DescribeSession(session.session_id))
        rows = zip(description.rows, session.plan.sequences, description.num_pending, strict=True)
        return logits_session_service_pb2.GetSessionResponse(
            rows=[
                logits_session_service_pb2.SessionRow(
                    position=len(ids),
                    tokens=tokens_pb2.TokenSequence(ids=ids),
                    seed=spec.seed,
                    prompt_token_count=spec.prompt_length,
                    pending_token_count=num_pending,
                )
                for ids, spec, num_pending in rows
            ],
            vocabulary=_vocabulary(session),
            kv_bytes=description.kv_bytes,
            create_time=times.timestamp(session.created_at),
            expire_time=times.timestamp(session.expires_at),
            effective_config=session.plan.effective_config,
            determinism=results.determinism(self._model.engine.info, self._model.fingerprint),
            max_length=session.max_length,
        )

    async def ListSessions(
        self, request: logits_session_service_pb2.ListSessionsRequest, context: Context
    ) -> logits_session_service_pb2.ListSessionsResponse:
        violations = Violations()
        start, limit = read_page(request, violations)
        violations.check()
        page = self._sessions.list(start, limit + 1)
        return logits_session_service_pb2.ListSessionsResponse(
            sessions=[
                logits_session_service_pb2.SessionSummary(
                    session_id=session.session_id,
                    positions=session.positions,
                    kv_bytes=session.kv_bytes,
                    expire_time=times.timestamp(session.expires_at),
                    vocabulary=_vocabulary(session),
                )
                for session in page[:limit]
            ],
            vocabulary=vocabulary_ref(self._model.vocabulary.newest),
            next_page_token=str(page[limit - 1].serial) if len(page) > limit else "",
        )

    async def TouchSession(
        self, request: logits_session_service_pb2.TouchSessionRequest, context: Context
    ) -> logits_session_service_pb2.TouchSessionResponse:
        violations = Violations()
        ttl_s = self._terms.read_ttl(request.ttl, violations) if request.HasField("ttl") else None
        violations.check()
        session = self._sessions.touch(request.session_id, ttl_s)
        return logits_session_service_pb2.TouchSessionResponse(
            expire_time=times.timestamp(session.expires_at), vocabulary=_vocabulary(session)
        )

    async def CloseSession(
        self, request: logits_session_service_pb2.CloseSessionRequest, context: Context
    ) -> logits_session_service_pb2.CloseSessionResponse:
        session, description = await self._sessions.close(request.session_id)
        return logits_session_service_pb2.CloseSessionResponse(
            token_count=sum(map(len, description.rows)), vocabulary=_vocabulary(session)
        )


def _asked(
    request: logits_session_service_pb2.OpenSessionRequest,
    bounds: Bounds,
    terms: SessionTerms,
    violations: Violations,
) -> AskedOpening:
    """Reads what a session is opened with."""
    prompts = read_prompts(request.prompt, violations, bounds)
    origins = read_origins(request.origins, prompts, violations)
    max_length = request.max_length
    if not request.HasField("max_length"):
        longest = max(map(len, prompts), default=0)
        max_length = terms.room(longest, bounds.context_length)
    return AskedOpening(
        violations=violations,
        rows=prompts,
        config=request.generation_config,
        scores=request.scores if request.HasField("scores") else None,
        max_length=max_length,
        cache_salt=request.cache_salt,
        origins=origins,
        new_id=terms.new_id,
        sample=request.HasField("sampling"),
        append=request.sampling.append,
    )


def _vocabulary(session: Session) -> vocabulary_pb2.VocabularyRef:
    return vocabulary_ref(session.vocabulary)


def _rows(session: Session) -> list[logits_session_service_pb2.SessionRow]:
    return [
        logits_session_service_pb2.SessionRow(
            position=position, seed=spec.seed, prompt_token_count=spec.prompt_length
        )
        for position, spec in zip(session.positions, session.plan.sequences, strict=True)
    ]
