"""Calls that change a session: the front and the engine agree whatever becomes of the caller."""

import asyncio

import pytest

from model_service.front.checks.sessions import StepPlan
from model_service.front.sessions.changes import SessionCalls
from model_service.front.sessions.session import Session
from model_service.protocol import DescribeSession, StepRow, StepSession
from rpc.errors import InvalidField, Overloaded, SessionBusy, SessionNotFound
from tests.fakes.counting_engine import HANGS
from tests.fakes.engine import engine

from .test_sessions import SELECTION, make_session, registry


def plan(session: Session, *rows: list[int], step_id: str = "") -> StepPlan:
    return StepPlan(
        StepSession(session.session_id, [StepRow(ids, None) for ids in rows], SELECTION), step_id
    )


async def opened(client, *prompts: list[int], **limits):
    sessions = registry(client, **limits)
    session = make_session(*prompts)
    await sessions.open(session, session.plan.command)
    return sessions, SessionCalls(client, sessions), session


async def test_work_goes_on_when_its_caller_is_gone_and_holds_the_session():
    async with engine() as client:
        sessions, calls, session = await opened(client, [4])

        async def work():
            with sessions.use(session.session_id):
                await calls.step(session, plan(session, [HANGS], step_id="a"))

        caller = asyncio.ensure_future(calls.tasks.to_the_end(work()))
        await asyncio.sleep(0.05)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        with pytest.raises(SessionBusy), sessions.use(session.session_id):
            pass
        await calls.tasks.finish()
        assert session.positions == [2]
        assert session.answer_of("a").answer.rows[0].position == 2
        assert session.answer_of("b") is None
        assert session.answer_of("") is None


async def test_a_step_that_is_refused_has_no_answer_to_repeat():
    async with engine() as client:
        _, calls, session = await opened(client, [4])
        with pytest.raises(Overloaded):
            await calls.step(session, plan(session, *[[1]] * 7, step_id="a"))
        assert session.answer_of("a") is None


async def test_a_fork_whose_caller_is_gone_leaves_nothing_behind():
    async with engine() as client:
        sessions, calls, session = await opened(client, [4], [5], max_sessions=3, max_rows=6)
        with sessions.use(session.session_id):
            fork = asyncio.ensure_future(calls.fork(session, [0, 1], 2))
            await asyncio.sleep(0)
            names = [s.session_id for s in sessions.list(session.serial, 9)]
            fork.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fork
        assert len(names) == 2
        assert len(sessions) == 1
        for name in names:
            with pytest.raises(SessionNotFound):
                await client.ask(DescribeSession(name))


async def test_forks_beyond_the_limits_are_refused_all_together():
    async with engine() as client:
        sessions, calls, session = await opened(client, [4], [5], max_sessions=3, max_rows=5)
        for count, resource in ((3, "sessions"), (2, "session_rows")):
            with pytest.raises(Overloaded) as caught:
                await calls.fork(session, [0, 1], count)
            assert caught.value.metadata["resource"] == resource
        assert len(sessions) == 1
        assert len((await calls.fork(session, [0], 2)).session_ids) == 2


async def test_selected_rows_count_among_the_rows_of_all_sessions():
    async with engine() as client:
        _, calls, session = await opened(client, [4], [5], max_rows=4)
        with pytest.raises(Overloaded):
            await calls.select_rows(session.session_id, [0] * 5, max_rows=9)
        assert session.num_rows == 2
        await calls.select_rows(session.session_id, [1, 1, 0, 1], max_rows=9)
        assert (session.num_rows, session.positions) == (4, [1, 1, 1, 1])
        with pytest.raises(InvalidField):
            await calls.select_rows(session.session_id, [0, 4], max_rows=9)
