"""Any order of calls, cancels and steps, under a lack of room, against calls that run alone."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model_service.protocol import (
    Cancel,
    CloseSession,
    FlushPrefixCache,
    ForkSession,
    Rejected,
    SequenceTokens,
    SessionAnswer,
    TruncateSession,
)
from tests.unit.model_service.engine.calls.test_sessions import best
from tests.unit.model_service.engine.counting import VOCABULARY_SIZE, CountingEngine, tokens

MAX_RUNNING = 3
KV_TOKENS = 150
ROW_TOKENS = 36
MAX_STEPS = 2000  # to the end of everything there is

# Prompts have much in common, so that they reuse and wait for each other.
BOOKS = [[(book + 3 * index) % VOCABULARY_SIZE for index in range(30)] for book in range(3)]

prompts = st.builds(
    lambda book, length, end: BOOKS[book][:length] + end,
    st.integers(0, 2),
    st.sampled_from([1, 5, 17, 24, 30]),
    st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=3),
)
salts = st.sampled_from(["", "a", None])
configs = st.sampled_from(
    [{}, {"do_sample": True, "temperature": 4.0}, {"guidance_scale": 1.5}, {"eos_token_ids": (9,)}]
)


@dataclass
class Generation:
    """What a call gives when it runs alone, and what it gave so far."""

    expected: list[list[int]]
    received: list[list[int]] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)


def alone(rows: list[list[int]], new: int, config: dict) -> list[list[int]]:
    engine = CountingEngine(max_running=8, kv_tokens=10_000)
    engine.generate(1, *rows, new=new, config=config, cache_salt=None)
    events = engine.run()
    return [tokens(events, 1, row) for row in range(len(rows))]


class SchedulingMachine(RuleBasedStateMachine):
    """Sessions are lists of tokens; a call of one may be under way for many steps."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = CountingEngine(
            max_running=MAX_RUNNING, kv_tokens=KV_TOKENS, chunk_tokens=16, context=60
        )
        self.num_slots = len(self.engine.runner.free_slots)
        self.generations: dict[int, Generation] = {}
        self.sessions: dict[str, list[int]] = {}
        self.calls: dict[int, tuple[str, list[int]]] = {}  # the session, and its tokens before
        self.request_ids = iter(range(1, 10**6))

    @property
    def idle(self) -> list[str]:
        busy = {name for name, _ in self.calls.values()}
        return sorted(set(self.sessions) - busy)

    def take(self, events: list) -> None:
        for event in events:
            if isinstance(event, SequenceTokens):
                self.take_tokens(event)
            elif isinstance(event, SessionAnswer) and event.request_id in self.calls:
                name, _ = self.calls.pop(event.request_id)
                (row,) = event.rows
                assert row.position == len(self.sessions[name])
                assert best(row.scores[-1]) == (self.sessions[name][-1] + 1) % VOCABULARY_SIZE
            else:
                assert not isinstance(event, Rejected), event

    def take_tokens(self, event: SequenceTokens) -> None:
        generation = self.generations[event.request_id]  # nothing comes after the end or a cancel
        assert event.row not in generation.finished
        generation.received[event.row] += event.token_ids
        received, expected = generation.received[event.row], generation.expected[event.row]
        assert received == expected[: len(received)]
        if event.finish is not None:
            assert received == expected
            generation.finished.add(event.row)
            if len(generation.finished) == len(generation.expected):
                del self.generations[event.request_id]

    # --- Generation ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.generations) < 6)
    @rule(
        rows=st.lists(prompts, min_size=1, max_size=4),
        new=st.integers(1, 12),
        priority=st.integers(-1, 1),
        principal=st.sampled_from(["", "a", "b"]),
        salt=salts,
        config=configs,
    )
    def generate(self, rows, new, priority, principal, salt, config):
        request_id = next(self.request_ids)
        expected = alone(rows, new, config)
        self.generations[request_id] = Generation(expected, [[] for _ in rows])
        self.engine.generate(
            request_id,
            *rows,
            new=new,
            priority=priority,
            principal=principal,
            config=config,
            cache_salt=salt,
        )

    @rule(count=st.integers(1, 6))
    def step(self, count):
        for _ in range(count):
            self.take(self.engine.step())

    @precondition(lambda self: self.generations)
    @rule(data=st.data())
    def cancel(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.generations)))
        self.engine.engine.handle(Cancel(request_id))
        del self.generations[request_id]

    @rule()
    def flush(self):
        self.engine.engine.handle(FlushPrefixCache(request_id=next(self.request_ids)))

    # --- Sessions --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.sessions) < 7)
    @rule(prompt=prompts, salt=salts)
    def open(self, prompt, salt):
        request_id = next(self.request_ids)
        name = f"s{request_id}"
        self.engine.open(request_id, prompt, session_id=name, max_length=ROW_TOKENS, salt=salt)
        self.sessions[name] = list(prompt)
        self.calls[request_id] = (name, [])

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def step_session(self, data):
        name = data.draw(st.sampled_from(self.idle))
        most = ROW_TOKENS - len(self.sessions[name])
        if most == 0:
            return
        ids = data.draw(st.lists(st.integers(0, 31), min_size=1, max_size=min(most, 4)))
        request_id = next(self.request_ids)
        self.engine.step_session(request_id, ids, session_id=name)
        self.calls[request_id] = (name, list(self.sessions[name]))
        self.sessions[name] += ids

    @precondition(lambda self: any(before for _, before in self.calls.values()))
    @rule(data=st.data())
    def give_up_a_step(self, data):
        steps = [request_id for request_id, (_, before) in self.calls.items() if before]
        request_id = data.draw(st.sampled_from(steps))
        self.engine.engine.handle(Cancel(request_id))
        name, self.sessions[name] = self.calls.pop(request_id)

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def truncate(self, data):
        name = data.draw(st.sampled_from(self.idle))
        length = data.draw(st.integers(0, len(self.sessions[name])))
        self.engine.engine.handle(
            TruncateSession(name, [length], request_id=next(self.request_ids))
        )
        del self.sessions[name][length:]

    @precondition(lambda self: self.idle and len(self.sessions) < 7)
    @rule(data=st.data())
    def fork(self, data):
        name = data.draw(st.sampled_from(self.idle))
        request_id = next(self.request_ids)
        fork = f"s{request_id}"
        self.engine.engine.handle(ForkSession(name, [fork], [0], request_id=request_id))
        self.sessions[fork] = list(self.sessions[name])

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def close(self, data):
        name = data.draw(st.sampled_from(self.idle))
        self.engine.engine.handle(CloseSession(name, request_id=next(self.request_ids)))
        del self.sessions[name]

    # --- What always holds -----------------------------------------------------------------------

    @invariant()
    def memory_and_slots_are_accounted_for(self):
        places, runner = self.engine.places, self.engine.runner
        held = [seq for seq in places._holders]
        donors = places._prefixes.donors
        assert places.used_tokens == sum(seq.max_length for seq in held)
        assert places.used_tokens + places.donor_tokens <= KV_TOKENS
        assert len(runner.free_slots) + len(held) + len(donors) == self.num_slots
        assert {seq.slot for seq in held}.isdisjoint(donor.slot for donor in donors)
        assert not any(runner.written.get(slot) for slot in runner.free_slots)
        assert self.engine.scheduler.num_running <= MAX_RUNNING

    def teardown(self):
        for _ in range(MAX_STEPS):
            report = self.engine.engine.step()
            if report is None:
                break
            self.take(report.events)
        assert not self.generations, "a sequence never ended"
        assert not self.calls, "a call was never answered"
        assert [self.engine.rows(name) for name in self.sessions] == [
            [ids] for ids in self.sessions.values()
        ]
        for name in self.sessions:
            self.engine.do(CloseSession(name, request_id=next(self.request_ids)))
        self.engine.do(FlushPrefixCache(request_id=next(self.request_ids)))
        assert self.engine.places.used_tokens == self.engine.places.session_tokens == 0
        assert len(self.engine.runner.free_slots) == self.num_slots
        assert self.engine.scheduler.active == []
        assert self.engine.scheduler.num_running == self.engine.scheduler.num_waiting == 0


TestScheduling = SchedulingMachine.TestCase
TestScheduling.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.full
class TestSchedulingAtLength(SchedulingMachine.TestCase):
    settings = settings(
        max_examples=500,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
