"""Generations, within sessions or without: from a request to the call that runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from lockstep.v1 import model_service_pb2

from model_service.front import gen_ai
from model_service.front.checks.generation import AskedContinuation, AskedSequences, AskedSession
from model_service.front.checks.plan import Asked, Plan
from model_service.front.checks.sessions import SessionTerms
from model_service.front.engine_client.call import Call
from model_service.front.served_model import ServedModel
from model_service.front.sessions.registry import SessionRegistry
from model_service.front.sessions.session import Session
from model_service.protocol import CloseSession, DescribeSession, Request, SequenceTokens
from rpc import identity
from rpc.identity import Role

_UNARY_REMEDY = "Ask for fewer ids, fewer positions or a smaller dtype, or use GenerateStream."
_BEAM_REMEDY = (
    "Ask for fewer ids, fewer positions, a smaller dtype, fewer beams or fewer prompts: a beam "
    "search answers at its end."
)

C = TypeVar("C", bound=Request[SequenceTokens])


class Generation:
    """A generation under way.

    Attributes:
        plan: what runs.
        session: what holds the sequences afterwards, or None.
        failed: whether a sequence has ended with an error.
    """

    def __init__(
        self, plan: Plan[Request[SequenceTokens]], call: Call, session: Session | None = None
    ) -> None:
        self.plan = plan
        self.session = session
        self.failed = False
        self._call = call
        self._positions = [len(spec.prompt_token_ids) for spec in plan.sequences]

    async def events(self) -> AsyncIterator[list[SequenceTokens]]:
        """Yields what each step chose, until every sequence has ended.

        Raises:
            ServiceError: the call failed.
        """
        async for events in self._call:
            for event in events:
                self._positions[event.row] += len(event.token_ids)
                self.failed |= event.finish is not None and event.finish.failure is not None
            yield events
        if self.session is not None:
            self.session.positions = self._positions

    @property
    def session_id(self) -> str:
        """The session that holds the sequences once all have ended, or empty."""
        session = self.session
        return "" if session is None or session.closed else session.session_id


class Generations:
    """Plans and runs generations of a model."""

    def __init__(self, model: ServedModel, sessions: SessionRegistry, terms: SessionTerms) -> None:
        """Runs generations of a model.

        Args:
            model: the model.
            sessions: what may be continued, and where what is kept goes.
            terms: what a session that is kept may ask for.
        """
        self._model = model
        self._sessions = sessions
        self._terms = terms

    async def plan(
        self, request: model_service_pb2.GenerateRequest
    ) -> Plan[Request[SequenceTokens]]:
        """Checks a request without running it.

        Raises:
            ServiceError: it would be refused.
        """
        _check_role(request)
        if request.session_id:
            with self._sessions.use(request.session_id) as session:
                return await self._plan_continuation(request, session)
        if request.HasField("keep_session"):
            return await self._plan(request, self._asked_session(request))
        return await self._plan(request, AskedSequences(request, self._model.bounds))

    @asynccontextmanager
    async def run(
        self, request: model_service_pb2.GenerateRequest, *, in_one_message: bool = False
    ) -> AsyncIterator[Generation]:
        """Runs a generation while the context is open; leaving it early cancels it.

        Args:
            request: the request.
            in_one_message: whether the answer has to fit one message.

        Raises:
            ServiceError: the request is refused.
        """
        _check_role(request)
        if request.session_id:
            running = self._continue(request, in_one_message)
        elif request.HasField("keep_session"):
            running = self._keep(request, in_one_message)
        else:
            running = self._run(request, in_one_message)
        async with running as generation:
            yield generation

    @asynccontextmanager
    async def _run(
        self, request: model_service_pb2.GenerateRequest, in_one_message: bool
    ) -> AsyncIterator[Generation]:
        asked = AskedSequences(request, self._model.bounds)
        plan = await self._plan(request, asked, in_one_message)
        with self._model.quotas.generation(self._sessions.own(), plan.kv_tokens):
            async with self._call(plan) as call:
                yield Generation(plan, call)

    @asynccontextmanager
    async def _continue(
        self, request: model_service_pb2.GenerateRequest, in_one_message: bool
    ) -> AsyncIterator[Generation]:
        """Lets a session generate; it is in use meanwhile."""
        with self._sessions.use(request.session_id) as session:
            plan = await self._plan_continuation(request, session, in_one_message)
            async with self._call(plan) as call:
                with session.generation():
                    yield Generation(plan, call, session)

    @asynccontextmanager
    async def _keep(
        self, request: model_service_pb2.GenerateRequest, in_one_message: bool
    ) -> AsyncIterator[Generation]:
        """Generates within a new session, of which nothing is left if anything fails."""
        asked = self._asked_session(request)
        plan = await self._plan(request, asked, in_one_message)
        session = Session.kept(plan, asked.ttl_s)
        session.kv_bytes = plan.kv_tokens * self._model.engine.info.kv_bytes_per_token
        self._model.check_open()
        self._sessions.admit([session])
        try:
            with self._sessions.hold(session):
                async with self._call(plan) as call:
                    generation = Generation(plan, call, session)
                    with session.generation():
                        yield generation
        except BaseException:
            self._drop(session)
            raise
        if generation.failed:
            generation.session = None
            self._drop(session)

    @asynccontextmanager
    async def _call(self, plan: Plan[Request[SequenceTokens]]) -> AsyncIterator[Call]:
        """Begins the engine's call, which is cancelled when it is left early.

        Raises:
            Paused: no new work is taken.
            QuotaExceeded: the caller has used its tokens.
            Overloaded: too much is in progress.
        """
        model = self._model
        model.check_open(plan.num_prompt_tokens)
        async with model.engine.stream(plan.command) as call:
            model.quotas.tokens.use(plan.num_prompt_tokens)
            metrics = model.metrics.generations
            metrics.admitted(call.operation, plan.prompt_lengths)
            gen_ai.describe_request(model.name, call.operation, plan.resolved.config)
            try:
                yield call
            finally:
                if call.unfinished_rows:
                    metrics.abandoned(
                        call.operation, call.unfinished_rows, failed=call.error is not None
                    )

    def _drop(self, session: Session) -> None:
        self._sessions.remove(session, "error")
        self._model.engine.tell(CloseSession(session.session_id))

    def _asked_session(self, request: model_service_pb2.GenerateRequest) -> AskedSession:
        return AskedSession(request, self._model.bounds, self._terms)

    async def _plan(
        self,
        request: model_service_pb2.GenerateRequest,
        asked: Asked[C],
        in_one_message: bool = False,
    ) -> Plan[C]:
        vocabulary = await self._model.resolve_vocabulary(request)
        return self._sized(self._model.plan(asked, vocabulary), in_one_message)

    async def _plan_continuation(
        self,
        request: model_service_pb2.GenerateRequest,
        session: Session,
        in_one_message: bool = False,
    ) -> Plan[Request[SequenceTokens]]:
        """Plans with the tokens that the engine has: those here may be older."""
        vocabulary = session.vocabulary
        if request.HasField("vocabulary"):
            vocabulary = await self._model.resolve_vocabulary(request)
        description = await self._model.engine.ask(DescribeSession(session.session_id))
        asked = AskedContinuation(request, session.plan, description.rows, vocabulary)
        return self._sized(self._model.plan(asked, session.vocabulary), in_one_message)

    def _sized(self, plan: Plan[C], in_one_message: bool) -> Plan[C]:
        """Checks that the answer fits where it cannot come piece by piece.

        Raises:
            ResponseTooLarge: it may not.
        """
        if in_one_message or plan.answers_at_once:
            remedy = _BEAM_REMEDY if plan.answers_at_once else _UNARY_REMEDY
            self._model.response_limits.check_message(plan.response_bytes, remedy)
        return plan


def _check_role(request: model_service_pb2.GenerateRequest) -> None:
    """Checks that who makes the call may have sessions, if it uses or keeps one.

    Raises:
        Unauthenticated, PermissionDenied: it may not.
    """
    if request.session_id or request.HasField("keep_session"):
        identity.require(Role.SESSION)
