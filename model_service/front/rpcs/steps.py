"""Steps of sessions, from their request to their answer."""

from lockstep.v1 import logits_session_service_pb2 as pb

from model_service.front import gen_ai
from model_service.front.checks.response_size import distribution_bytes, row_bytes
from model_service.front.checks.sessions import StepPlan, read_step
from model_service.front.rpcs import results
from model_service.front.rpcs.results import RowWriter, inline_row
from model_service.front.served_model import ServedModel
from model_service.front.sessions.changes import SessionCalls
from model_service.front.sessions.registry import SessionRegistry
from model_service.front.sessions.session import Session, StepAnswer
from rpc.lifecycle import Lifecycle
from wire import times
from wire.vocabulary import vocabulary_ref

_UNARY_REMEDY = (
    "Ask for fewer ids, fewer positions or a smaller dtype, or use StepStream with accept_chunks "
    "and no step_id."
)
_STREAM_REMEDY = "Ask for fewer ids, fewer positions or a smaller dtype, or step fewer tokens."


class Steps:
    """Steps of the sessions of a registry."""

    def __init__(
        self,
        model: ServedModel,
        sessions: SessionRegistry,
        calls: SessionCalls,
        lifecycle: Lifecycle,
    ) -> None:
        """Steps sessions of a model, and tells their callers when the server shuts down."""
        self._model = model
        self._sessions = sessions
        self._calls = calls
        self._lifecycle = lifecycle

    async def answer(
        self, request: pb.StepRequest, *, path: str = "", write_row: RowWriter | None = None
    ) -> pb.StepResponse:
        """Runs and times a step; one with a name is finished even if its caller gives up.

        A retry then finds its answer. One without a name is undone instead.

        Args:
            request: the step.
            path: of the step in the message, `""` or ending in a dot.
            write_row: where full rows go when the answer may come in several messages.

        Raises:
            ServiceError: the step is wrong, or was refused; nothing happened.
        """
        with self._model.metrics.sessions.step("step_stream" if path else "step"):
            work = self._apply(request, path, write_row)
            return await (self._calls.tasks.to_the_end(work) if request.step_id else work)

    async def _apply(
        self, request: pb.StepRequest, path: str, write_row: RowWriter | None
    ) -> pb.StepResponse:
        with self._sessions.use(request.session_id) as session:
            known = session.answer_of(request.step_id)
            answered = known or await self._step(
                session, self._read(request, session, path, in_chunks=write_row is not None)
            )
        left_s = self._lifecycle.drain_left_s
        return pb.StepResponse(
            rows=[
                results.step_row_result(row, seed, write_row or inline_row)
                for row, seed in zip(answered.answer.rows, answered.seeds, strict=True)
            ],
            replayed=known is not None,
            recomputed=answered.answer.recomputed,
            vocabulary=vocabulary_ref(answered.vocabulary),
            expire_time=times.timestamp(session.expires_at),
            determinism=results.determinism(self._model.engine.info, self._model.fingerprint),
            drain_time_left=None if left_s is None else times.duration(left_s),
        )

    async def _step(self, session: Session, plan: StepPlan) -> StepAnswer:
        num_tokens = sum(len(row.token_ids) for row in plan.command.rows)
        self._model.quotas.tokens.check(max(num_tokens, 1))
        answered = await self._calls.step(session, plan)
        gen_ai.describe_request(self._model.name, "step")
        sampled = answered.answer.sampled_token_ids
        self._model.quotas.tokens.use(num_tokens + len(sampled))
        self._model.metrics.sessions.stepped(num_tokens)
        self._model.metrics.generations.generated(sampled)
        return answered

    def _read(
        self, request: pb.StepRequest, session: Session, path: str, *, in_chunks: bool
    ) -> StepPlan:
        vocabulary_size = session.vocabulary.size
        plan = read_step(
            request,
            session.selection,
            num_rows=session.num_rows,
            max_length=session.max_length,
            vocabulary_size=vocabulary_size,
            max_selected_tokens=self._model.limits.max_selected_tokens,
            without_rows=self._model.engine.info.ids_without_rows,
            path=path,
        )
        selection = plan.command.selection
        counts = [len(row.token_ids) for row in plan.command.rows]
        config = session.plan.resolved.config
        num_bytes = distribution_bytes(selection, counts, config, vocabulary_size)
        limits = self._model.response_limits
        if in_chunks and not plan.step_id:  # the answer of one with a name is kept
            num_row_bytes = row_bytes(selection, counts, vocabulary_size)
            limits.check_step(num_bytes, num_row_bytes, _STREAM_REMEDY)
        else:
            limits.check_message(num_bytes, _UNARY_REMEDY)
        return plan
