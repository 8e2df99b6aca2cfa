"""Generations, within sessions or without: from a request to the call that runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from lockstep.v1 import model_service_pb2

from model_service.front.checks.branches import takes_several_rows
from model_service.front.checks.continuation import ContinuedRows, plan_continuation
from model_service.front.checks.generation_plan import GenerationPlan
from model_service.front.checks.selection import FULL_LOGITS
from model_service.front.engine_client.call import Call
from model_service.front.served_model import ServedModel
from model_service.front.sessions.opening import Opening
from model_service.front.sessions.registry import SessionRegistry
from model_service.front.sessions.session import Session, new_session_id
from model_service.front.sessions.terms import SessionTerms
from model_service.protocol import (
    CloseSession,
    ContinueSession,
    DescribeSession,
    Generate,
    GenerateSession,
    SequenceSpec,
    SequenceTokens,
)
from wire.violations import Violations

_UNARY_WAY_OUT = "Ask for fewer ids, fewer positions or a smaller dtype, or use GenerateStream."
_BEAM_WAY_OUT = (
    "Ask for fewer ids, fewer positions, a smaller dtype, fewer beams or fewer prompts: a beam "
    "search answers at its end."
)


class Generation:
    """A generation under way.

    Attributes:
        plan: what runs.
        session: what holds the sequences afterwards, or None.
        failed: whether a sequence has ended with an error.
    """

    def __init__(self, plan: GenerationPlan, call: Call, session: Session | None) -> None:
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

    async def plan(self, request: model_service_pb2.GenerateRequest) -> GenerationPlan:
        """Checks a request without running it.

        Raises:
            ServiceError: it would be refused.
        """
        if request.session_id:
            with self._sessions.use(request.session_id) as session:
                return await self._plan_continuation(request, session)
        plan = await self._model.plan(request)
        if request.HasField("keep_session"):
            kept = self._session_to_keep(request, plan)
            plan = replace(plan, kv_tokens=kept.opening.max_length * len(plan.sequences))
        return plan

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
        plan = await self._model.plan(request)
        self._check_size(plan, in_one_message)
        command = Generate(
            plan.sequences,
            plan.resolved.config,
            revision=plan.vocabulary.revision,
            selection=plan.selection,
            prompt_selection=plan.prompt_selection,
            priority=plan.priority,
            cache_salt=plan.cache_salt,
            sequences_per_prompt=plan.resolved.num_return_sequences,
        )
        async with self._model.run(plan, command) as call:
            yield Generation(plan, call, None)

    @asynccontextmanager
    async def _continue(
        self, request: model_service_pb2.GenerateRequest, in_one_message: bool
    ) -> AsyncIterator[Generation]:
        """Lets a session generate; it is in use meanwhile."""
        with self._sessions.use(request.session_id) as session:
            plan = await self._plan_continuation(request, session)
            self._check_size(plan, in_one_message)
            command = ContinueSession(
                session.session_id,
                plan.resolved.config,
                [spec.max_new_tokens or 1 for spec in plan.sequences],
                selection=plan.selection,
            )
            async with self._model.run(plan, command) as call:
                with session.generation():
                    yield Generation(plan, call, session)

    @asynccontextmanager
    async def _keep(
        self, request: model_service_pb2.GenerateRequest, in_one_message: bool
    ) -> AsyncIterator[Generation]:
        """Generates within a new session, of which nothing is left if anything fails."""
        plan = await self._model.plan(request)
        self._check_size(plan, in_one_message)
        session = self._session_to_keep(request, plan)
        self._model.check_open()
        self._sessions.admit([session])
        try:
            with self._sessions.use(session.session_id):
                command = GenerateSession(
                    session.session_id,
                    plan.sequences,
                    plan.resolved.config,
                    revision=plan.vocabulary.revision,
                    max_length=session.opening.max_length,
                    selection=plan.selection,
                    prompt_selection=plan.prompt_selection,
                    cache_salt=plan.cache_salt,
                )
                async with self._model.run(plan, command) as call:
                    generation = Generation(plan, call, session)
                    with session.generation():
                        yield generation
        except BaseException:
            self._drop(session)
            raise
        if generation.failed:
            generation.session = None
            self._drop(session)

    def _drop(self, session: Session) -> None:
        self._sessions.remove(session, "error")
        self._model.engine.tell(CloseSession(session.session_id))

    def _check_size(self, plan: GenerationPlan, in_one_message: bool) -> None:
        if in_one_message or plan.answers_at_once:
            way_out = _BEAM_WAY_OUT if plan.answers_at_once else _UNARY_WAY_OUT
            self._model.response_limits.check_message(plan.response_bytes, way_out)

    async def _plan_continuation(
        self, request: model_service_pb2.GenerateRequest, session: Session
    ) -> GenerationPlan:
        """Plans with the tokens that the engine has: those here may be older."""
        opening = session.opening
        vocabulary = opening.vocabulary
        if request.HasField("vocabulary"):
            vocabulary = await self._model.resolve_vocabulary(request.vocabulary, given=True)
        description = await self._model.engine.ask(DescribeSession(session.session_id))
        rows = ContinuedRows(
            sequences=[
                SequenceSpec(prompt_token_ids=ids, seed=spec.seed)
                for ids, spec in zip(description.rows, opening.sequences, strict=True)
            ],
            config=opening.resolved.config,
            vocabulary=opening.vocabulary,
            max_length=opening.max_length,
        )
        model = self._model
        plan = plan_continuation(request, vocabulary, rows, model.engine.info, model.limits)
        model.check_stop_strings(plan.resolved.config)
        return plan

    def _session_to_keep(
        self, request: model_service_pb2.GenerateRequest, plan: GenerationPlan
    ) -> Session:
        """Makes the session that will hold a generation's sequences.

        Raises:
            InvalidField: the request asks for what a session cannot have.
        """
        violations = Violations()
        keep, ttl_s = request.keep_session, self._terms.ttl_s
        if keep.HasField("ttl"):
            ttl_s = self._terms.read_ttl(keep.ttl, violations, "keep_session.ttl")
        info = self._model.engine.info
        longest = max(len(spec.prompt_token_ids) for spec in plan.sequences)
        needed = min(longest + plan.resolved.config.max_new_tokens, info.context_length)
        max_length = self._terms.room(needed, info.context_length)
        if keep.HasField("max_length"):
            max_length = keep.max_length
            if not needed <= max_length <= info.context_length:
                violations.add(
                    "keep_session.max_length", f"must be in [{needed}, {info.context_length}]"
                )
        if takes_several_rows(plan.resolved):
            violations.add(
                "keep_session",
                "keeps one row per sequence; leave it out where a sequence takes several",
            )
        if any(spec.num_padding for spec in plan.sequences):
            violations.add(
                "keep_session", "keeps rows without padding; leave out lengths_include_padding"
            )
        violations.check()
        opening = Opening(
            sequences=plan.sequences,
            resolved=replace(plan.resolved, num_return_sequences=1),
            seed=plan.seed,
            selection=FULL_LOGITS,
            vocabulary=plan.vocabulary,
            max_length=max_length,
            cache_salt=plan.cache_salt or "",
        )
        session = Session(new_session_id(), opening, FULL_LOGITS, ttl_s)
        session.kv_bytes = max_length * len(plan.sequences) * info.kv_bytes_per_token
        return session
