"""Names, expiry and exclusive use of sessions."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from model_service.front.checks.configuration import ResolvedConfig
from model_service.front.checks.plan import Plan
from model_service.front.checks.sessions import new_session_id
from model_service.front.metrics import ModelMetrics
from model_service.front.quotas import Quotas
from model_service.front.sessions.registry import SessionRegistry
from model_service.front.sessions.replica import Replica
from model_service.front.sessions.session import Session
from model_service.protocol import DescribeSession, OpenSession, SequenceSpec, SessionAnswer
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from rpc.errors import Overloaded, QuotaExceeded, SessionBusy, SessionNotFound
from tests.callers import called_by
from tests.fakes.engine import engine
from vocabulary import Reference

SELECTION = ScoreSelection(logits=True, amount="full")
CONFIG = ResolvedConfig(GenerationConfig(max_new_tokens=1), 0, 1, False)


def make_session(*prompts: list[int], ttl_s: float = 300.0) -> Session:
    specs = [SequenceSpec(ids, seed=0) for ids in prompts or ([4],)]
    command = OpenSession(new_session_id(), specs, CONFIG.config, 0, 16, SELECTION)
    plan = Plan(command, specs, CONFIG, 0, Reference("tiny", 0, "", 32), 16 * len(specs), 0)
    return Session(plan, SELECTION, ttl_s)


async def open_session(sessions: SessionRegistry, session: Session) -> SessionAnswer:
    return await sessions.open(session, session.plan.command)


def registry(client, *, max_sessions: int = 2, max_rows: int = 4, **quota: int) -> SessionRegistry:
    metrics = ModelMetrics(CollectorRegistry(), "tiny")
    quotas = Quotas(client, **{"sessions": 0, "kv_percent": 0, "tokens_per_minute": 0, **quota})
    replica = Replica("tiny:1")
    return SessionRegistry(
        client, metrics, quotas, replica, max_sessions=max_sessions, max_rows=max_rows
    )


async def test_an_opened_session_has_the_positions_of_its_prompts():
    async with engine() as client:
        session = make_session([4], [5, 6])
        await open_session(registry(client), session)
        assert session.positions == [1, 2]
        assert not session.busy


async def test_sessions_beyond_the_limit_are_refused():
    async with engine() as client:
        sessions = registry(client)
        for _ in range(2):
            await open_session(sessions, make_session())
        with pytest.raises(Overloaded) as caught:
            await open_session(sessions, make_session())
        assert caught.value.metadata["resource"] == "sessions"
        assert caught.value.retry_delay_s is not None


async def test_rows_of_sessions_beyond_the_limit_are_refused():
    async with engine() as client:
        sessions = registry(client)
        await open_session(sessions, make_session([1], [2], [3]))
        with pytest.raises(Overloaded) as caught:
            await open_session(sessions, make_session([1], [2]))
        assert caught.value.metadata["resource"] == "session_rows"


async def test_a_session_that_has_expired_makes_room():
    async with engine() as client:
        sessions = registry(client, max_sessions=1)
        await open_session(sessions, make_session(ttl_s=0.01))
        await asyncio.sleep(0.05)
        await open_session(sessions, make_session())


async def test_a_session_that_cannot_be_opened_leaves_nothing_behind():
    async with engine() as client:
        sessions = registry(client)
        with pytest.raises(Overloaded):  # more rows than the engine has permits
            await open_session(registry(client, max_rows=99), make_session(*[[1]] * 7))
        assert len(sessions) == 0
        await open_session(sessions, make_session())


async def test_one_call_at_a_time_uses_a_session():
    async with engine() as client:
        sessions = registry(client)
        session = make_session()
        await open_session(sessions, session)
        with sessions.use(session.session_id):
            with pytest.raises(SessionBusy), sessions.use(session.session_id):
                pass
            with pytest.raises(SessionBusy):
                await sessions.close(session.session_id)
        with sessions.use(session.session_id):
            pass


async def test_a_session_that_was_idle_for_too_long_is_gone_here_and_in_the_engine():
    async with engine() as client:
        sessions = registry(client)
        session = make_session(ttl_s=0.05)
        await open_session(sessions, session)
        await asyncio.sleep(0.1)
        with pytest.raises(SessionNotFound), sessions.use(session.session_id):
            pass
        assert sessions.list(0, 10) == []
        sessions.expire()
        assert len(sessions) == 0
        with pytest.raises(SessionNotFound):
            await client.ask(DescribeSession(session.session_id))


async def test_the_idle_time_of_a_session_starts_once_it_is_open():
    async with engine() as client:
        sessions = registry(client)
        session = make_session(ttl_s=60.0)
        session.used_at -= 100.0  # so long its call waited for a processor
        await open_session(sessions, session)
        with sessions.use(session.session_id):
            pass


async def test_a_session_does_not_expire_while_a_call_uses_it():
    async with engine() as client:
        sessions = registry(client)
        session = make_session(ttl_s=0.05)
        await open_session(sessions, session)
        with sessions.use(session.session_id):
            await asyncio.sleep(0.1)
            sessions.expire()
        assert len(sessions) == 1


async def test_use_and_touch_start_the_idle_time_anew():
    async with engine() as client:
        sessions = registry(client)
        session = make_session(ttl_s=60.0)
        await open_session(sessions, session)
        for _ in range(3):
            session.used_at -= 40.0  # so long nobody used it
            sessions.touch(session.session_id, None)
        session.used_at -= 40.0
        with sessions.use(session.session_id):
            pass
        sessions.touch(session.session_id, 100.0)
        assert session.expires_at > time.time() + 90


async def test_expired_and_unknown_sessions_are_told_apart_by_nobody():
    async with engine() as client:
        sessions = registry(client)
        session = make_session(ttl_s=0.01)
        await open_session(sessions, session)
        await asyncio.sleep(0.05)
        messages = []
        for session_id in (session.session_id, "unknown"):
            with pytest.raises(SessionNotFound) as caught:
                await sessions.close(session_id)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


async def test_a_closed_session_is_gone():
    async with engine() as client:
        sessions = registry(client)
        session = make_session([4, 5])
        await open_session(sessions, session)
        closed, description = await sessions.close(session.session_id)
        assert closed is session
        assert description.rows == [[4, 5]]
        with pytest.raises(SessionNotFound):
            sessions.touch(session.session_id, None)


async def test_sessions_are_listed_in_pages_in_order_of_opening():
    async with engine() as client:
        sessions = registry(client, max_sessions=5, max_rows=5)
        opened = [make_session() for _ in range(5)]
        for session in opened:
            await open_session(sessions, session)
        first = sessions.list(0, 3)
        assert first == opened[:3]
        assert sessions.list(first[-1].serial, 3) == opened[3:]


def test_names_of_sessions_cannot_be_guessed():
    names = {new_session_id() for _ in range(1000)}
    assert len(names) == 1000
    assert min(map(len, names)) >= 22


# --- Quotas --------------------------------------------------------------------------------------


async def test_a_caller_has_as_many_sessions_as_it_may_and_is_told_when_the_first_one_ends():
    async with engine() as client:
        sessions = registry(client, max_sessions=9, max_rows=9, sessions=2)
        with called_by("alice"):
            await open_session(sessions, make_session(ttl_s=100))
            await open_session(sessions, make_session(ttl_s=50))
            with pytest.raises(QuotaExceeded) as refused:
                await open_session(sessions, make_session())
        assert refused.value.metadata == {"quota": "sessions", "limit": "2"}
        assert 40 < refused.value.retry_delay_s <= 50
        with called_by("bob"):
            await open_session(sessions, make_session())
        with called_by("carol", quotas={"sessions": 3}):
            for _ in range(3):
                await open_session(sessions, make_session())


async def test_a_caller_reserves_as_much_of_the_cache_as_it_may():
    async with engine() as client:
        percent = 32 * 100 // client.info.kv_total_tokens + 1
        limit = client.info.kv_total_tokens * percent // 100
        sessions = registry(client, max_sessions=99, max_rows=99, kv_percent=percent)
        with called_by("alice"):
            for _ in range(limit // 16):
                await open_session(sessions, make_session())
            with pytest.raises(QuotaExceeded) as refused:
                await open_session(sessions, make_session())
            assert refused.value.metadata == {"quota": "kv_percent", "limit": str(percent)}
            assert refused.value.retry_delay_s is not None
            quotas = sessions._quotas
            with pytest.raises(QuotaExceeded), quotas.generation(sessions.own(), 16):
                pass
            with pytest.raises(QuotaExceeded) as alone, quotas.generation((), limit + 1):
                pass
            assert alone.value.retry_delay_s is None  # it never will
        with called_by("bob"), quotas.generation((), limit):
            with pytest.raises(QuotaExceeded) as refused, quotas.generation((), 1):
                pass
            assert refused.value.retry_delay_s == 1.0
        with called_by("bob"), quotas.generation((), limit):
            pass
