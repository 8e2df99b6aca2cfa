"""Any order of calls on sessions, against lists of tokens."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model_service.protocol import (
    Cancel,
    CloseSession,
    ForkSession,
    Rejected,
    SelectSessionRows,
    TruncateSession,
)
from tests.unit.model_service.engine.counting import VOCABULARY_SIZE, CountingEngine, tokens

from .test_sessions import best

NUM_SLOTS = 24
MAX_LENGTH = 20
MOST_ROWS = 12  # of a session: half of what the engine has room for
MOST_ROWS_IN_ALL = 40  # many of them without a slot

IDS = st.lists(st.integers(0, VOCABULARY_SIZE - 1), min_size=1, max_size=4)
CHUNK_TOKENS = 16  # the smallest: prompts of one step


class SessionMachine(RuleBasedStateMachine):
    """The model of a session is a list of tokens per row, and of what is pending."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = CountingEngine(
            max_running=NUM_SLOTS - 8,
            kv_tokens=2 * MOST_ROWS * MAX_LENGTH,
            chunk_tokens=CHUNK_TOKENS,
        )
        self.sessions: dict[str, list[list[int]]] = {}
        self.unseen: dict[str, list[bool]] = {}
        self.names = iter(f"s{i}" for i in range(10**6))
        self.request_ids = iter(range(1, 10**6))

    @property
    def num_rows(self) -> int:
        return sum(map(len, self.sessions.values()))

    def pick(self, data) -> str:
        return data.draw(st.sampled_from(sorted(self.sessions)))

    def pick_rows(self, data, name: str) -> list[int]:
        return data.draw(
            st.lists(st.integers(0, len(self.sessions[name]) - 1), min_size=1, max_size=4)
        )

    def draw_steps(self, data, name: str) -> list[list[int]]:
        return [
            data.draw(st.lists(st.integers(0, 31), max_size=min(3, MAX_LENGTH - len(ids))))
            for ids in self.sessions[name]
        ]

    def slots(self, name: str) -> list[int | None]:
        session = self.engine.sessions.find(name)
        return [seq.slot for seq in session.rows]

    @property
    def num_rows_with_slots(self) -> int:
        return sum(slot is not None for name in self.sessions for slot in self.slots(name))

    @precondition(lambda self: self.num_rows < MOST_ROWS_IN_ALL)
    @rule(prompts=st.lists(IDS, min_size=1, max_size=3))
    def open(self, prompts):
        name = next(self.names)
        self.engine.open(next(self.request_ids), *prompts, session_id=name, max_length=MAX_LENGTH)
        (event,) = self.engine.run()
        assert [best(row.scores[0]) for row in event.rows] == [successor(p) for p in prompts]
        self.sessions[name] = [list(prompt) for prompt in prompts]
        self.unseen[name] = [False] * len(prompts)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), append=st.booleans(), look_ahead=st.booleans())
    def step(self, data, append, look_ahead):
        name = self.pick(data)
        steps, rows, unseen = self.draw_steps(data, name), self.sessions[name], self.unseen[name]
        self.engine.step_session(
            next(self.request_ids),
            *steps,
            session_id=name,
            sample=append,
            append=append,
            look_ahead=look_ahead,
        )
        slots = self.slots(name)
        lost = [slot is None and bool(ids) for slot, ids in zip(slots, rows, strict=True)]
        stepped = [bool(given) or new for given, new in zip(steps, unseen, strict=True)]
        (answer,) = self.engine.run()
        assert answer.recomputed == any(map(all, zip(lost, stepped, strict=True)))
        for index, (given, row) in enumerate(zip(steps, answer.rows, strict=True)):
            ids = rows[index] + given
            advanced = bool(given) or unseen[index]
            expected = [successor(ids)] if advanced else []
            assert [best(scores) for scores in row.scores] == expected
            if look_ahead:
                assert row.position == len(rows[index])
                continue
            appended = append and advanced and len(ids) < MAX_LENGTH
            rows[index] = ids + (expected if appended else [])
            unseen[index] = appended
            assert row.position == len(rows[index])

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), num_steps=st.integers(0, 1))
    def give_up_a_step(self, data, num_steps):
        name = self.pick(data)
        steps = [
            data.draw(st.lists(st.integers(0, 31), max_size=MAX_LENGTH - len(ids)))
            for ids in self.sessions[name]
        ]
        request_id = next(self.request_ids)
        self.engine.step_session(request_id, *steps, session_id=name)
        answered = [e for _ in range(num_steps) for e in self.engine.step()]
        self.engine.do(Cancel(request_id))
        if answered:  # it was too late
            for index, given in enumerate(steps):
                self.sessions[name][index] += given
                self.unseen[name][index] = False

    @precondition(lambda self: self.num_rows < MOST_ROWS_IN_ALL)
    @rule(prompts=st.lists(IDS, min_size=1, max_size=3), new=st.integers(1, 4))
    def keep_a_generation(self, prompts, new):
        name, request_id = next(self.names), next(self.request_ids)
        self.engine.generate_session(
            request_id, *prompts, session_id=name, max_length=MAX_LENGTH, new=new
        )
        events = self.engine.run()
        expected = [following(prompt, new) for prompt in prompts]
        assert [tokens(events, request_id, row) for row in range(len(prompts))] == expected
        self.sessions[name] = [prompt + following(prompt, new) for prompt in prompts]
        self.unseen[name] = [True] * len(prompts)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), new=st.integers(1, 4), given_up_after=st.none() | st.integers(0, 2))
    def generate(self, data, new, given_up_after):
        name, request_id = self.pick(data), next(self.request_ids)
        rows = self.sessions[name]
        self.engine.continue_session(request_id, name, new=new)
        if not all(0 < len(ids) < MAX_LENGTH for ids in rows):
            assert isinstance(self.engine.run()[0], Rejected)
            return
        lengths = [min(new, MAX_LENGTH - len(ids)) for ids in rows]
        expected = [following(ids, n) for ids, n in zip(rows, lengths, strict=True)]
        if given_up_after is None or given_up_after >= max(lengths):
            events = self.engine.run()
            assert [tokens(events, request_id, row) for row in range(len(rows))] == expected
            self.sessions[name] = [a + b for a, b in zip(rows, expected, strict=True)]
            self.unseen[name] = [True] * len(rows)
            return
        for _ in range(given_up_after):
            self.engine.step()
        self.engine.do(Cancel(request_id))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def truncate(self, data):
        name = self.pick(data)
        rows = self.sessions[name]
        lengths = [data.draw(st.integers(0, len(ids))) for ids in rows]
        self.engine.do(TruncateSession(name, lengths, request_id=next(self.request_ids)))
        for index, length in enumerate(lengths):
            self.unseen[name][index] &= length == len(rows[index])
            del rows[index][length:]

    @precondition(lambda self: 0 < self.num_rows < MOST_ROWS_IN_ALL)
    @rule(data=st.data(), count=st.integers(1, 2))
    def fork(self, data, count):
        name = self.pick(data)
        indices = self.pick_rows(data, name)
        names = [next(self.names) for _ in range(count)]
        copied = [i for i in indices if self.slots(name)[i] is not None] * count
        copied = copied[: 2 * MOST_ROWS - self.num_rows_with_slots]  # while there is room
        cached = sum(len(self.sessions[name][i]) - self.unseen[name][i] for i in copied)
        (event,) = self.engine.do(
            ForkSession(name, names, indices, request_id=next(self.request_ids))
        )
        assert event.copied_bytes == cached * 2
        for fork in names:
            self.sessions[fork] = [list(self.sessions[name][i]) for i in indices]
            self.unseen[fork] = [self.unseen[name][i] for i in indices]

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def select(self, data):
        name = self.pick(data)
        indices = self.pick_rows(data, name)
        self.engine.do(SelectSessionRows(name, indices, request_id=next(self.request_ids)))
        self.sessions[name] = [list(self.sessions[name][i]) for i in indices]
        self.unseen[name] = [self.unseen[name][i] for i in indices]

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def close(self, data):
        name = self.pick(data)
        (event,) = self.engine.do(CloseSession(name, request_id=next(self.request_ids)))
        assert event.rows == self.sessions.pop(name)
        del self.unseen[name]

    @invariant()
    def rows_are_as_the_lists(self):
        for name, rows in self.sessions.items():
            assert self.engine.rows(name) == rows

    @invariant()
    def every_slot_and_token_is_accounted_for(self):
        scheduler, runner, places = self.engine.scheduler, self.engine.runner, self.engine.places
        donors = places._prefixes.donors
        assert places.used_tokens == places.session_tokens
        assert places.used_tokens == self.num_rows_with_slots * MAX_LENGTH
        assert places.used_tokens + places.donor_tokens <= places.total_tokens
        assert len(runner.free_slots) + len(donors) == NUM_SLOTS - self.num_rows_with_slots
        assert all(
            runner.written[donor.slot][: donor.num_cached] == donor.token_ids for donor in donors
        )
        assert not any(runner.written.get(slot) for slot in runner.free_slots)
        assert scheduler.active == []
        assert scheduler.num_waiting == 0


def successor(ids: list[int]) -> int:
    return (ids[-1] + 1) % VOCABULARY_SIZE


def following(ids: list[int], count: int) -> list[int]:
    return [(ids[-1] + 1 + index) % VOCABULARY_SIZE for index in range(count)]


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
