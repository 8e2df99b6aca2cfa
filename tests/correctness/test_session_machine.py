"""Any order of calls on sessions of a real model, against forward passes from scratch."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from model_service.protocol import ContinueSession, StepRow, StepSession
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import InprocEngine, array
from tests.pairs import Pair

from .engine_session import FULL, EngineSession, recomputed

BOUND = 1e-4
MAX_LENGTH = 64
MAX_ROWS = 12
KV_TOKENS = 8 * MAX_LENGTH  # so that idle sessions lose their places

IDS = st.integers(0, VOCABULARY_SIZE - 1)
PROMPTS = st.lists(st.lists(IDS, min_size=1, max_size=30), min_size=1, max_size=3)


class SessionMachine(RuleBasedStateMachine):
    """A session is modelled by its tokens and by which rows have one that was not seen yet."""

    pair: Pair
    engine: InprocEngine
    calls = 0
    compared = 0
    largest = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[list[int]]] = {}
        self.unseen: dict[str, list[bool]] = {}
        self.sessions: dict[str, EngineSession] = {}

    # --- Helpers -------------------------------------------------------------------------------

    def count(self) -> None:
        type(self).calls += 1

    def add(self, session: EngineSession, rows: list[list[int]], unseen: list[bool]) -> None:
        self.sessions[session.name] = session
        self.rows[session.name], self.unseen[session.name] = rows, unseen

    def fits(self, num_more: int) -> bool:
        return sum(map(len, self.rows.values())) + num_more <= MAX_ROWS

    def pick(self, data) -> tuple[EngineSession, list[list[int]], list[bool]]:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        self.count()
        return self.sessions[name], self.rows[name], self.unseen[name]

    def draw_ids(self, data, rows: list[list[int]], most: int = 5) -> list[list[int]]:
        return [
            data.draw(st.lists(IDS, max_size=max(0, min(most, MAX_LENGTH - 1 - len(ids)))))
            for ids in rows
        ]

    def compare(self, answer, whole: list[list[int]], stepped: list[bool]) -> list[torch.Tensor]:
        """Compares the last logits of stepped rows with those of all their tokens."""
        expected = []
        for row, ids, moved in zip(answer.rows, whole, stepped, strict=True):
            expected.append(recomputed(self.pair.model, ids) if ids else torch.zeros(1))
            assert bool(row.scores) == moved
            if moved:
                got = torch.from_numpy(array(row.scores[-1].logits))
                difference = float((got - expected[-1]).abs().max())
                type(self).largest = max(self.largest, difference)
                type(self).compared += 1
                assert difference <= BOUND
        return expected

    def greedy(self, ids: list[int], count: int) -> list[int]:
        new: list[int] = []
        for _ in range(count):
            new.append(int(recomputed(self.pair.model, ids + new).argmax()))
        return new

    # --- Calls ---------------------------------------------------------------------------------

    @rule(prompts=PROMPTS)
    def open(self, prompts):
        if self.fits(len(prompts)):
            self.count()
            session = EngineSession(self.engine)
            answer = session.open(prompts, max_length=MAX_LENGTH)
            self.compare(answer, prompts, [True] * len(prompts))
            self.add(session, [list(prompt) for prompt in prompts], [False] * len(prompts))

    @rule(prompts=PROMPTS, new=st.integers(1, 4))
    def keep_a_generation(self, prompts, new):
        if self.fits(len(prompts)):
            self.count()
            session = EngineSession(self.engine)
            config = self.engine.config(max_new_tokens=new)
            got = session.keep(prompts, config, max_length=MAX_LENGTH)
            assert got == [self.greedy(prompt, new) for prompt in prompts]
            whole = [prompt + ids for prompt, ids in zip(prompts, got, strict=True)]
            self.add(session, whole, [True] * len(prompts))

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), append=st.booleans(), look_ahead=st.booleans())
    def step(self, data, append, look_ahead):
        session, rows, unseen = self.pick(data)
        given = self.draw_ids(data, rows)
        answer = session.step(given, sample=append, append=append, look_ahead=look_ahead)
        whole = [ids + more for ids, more in zip(rows, given, strict=True)]
        stepped = [bool(more) or pending for more, pending in zip(given, unseen, strict=True)]
        expected = self.compare(answer, whole, stepped)
        if look_ahead:
            return
        for index, (ids, moved) in enumerate(zip(whole, stepped, strict=True)):
            rows[index], unseen[index] = ids, append and moved
            if append and moved:
                rows[index] = [*ids, int(expected[index].argmax())]

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), new=st.integers(1, 4))
    def generate(self, data, new):
        session, rows, unseen = self.pick(data)
        if all(0 < len(ids) < MAX_LENGTH - new for ids in rows):
            got = session.generate(self.engine.config(max_new_tokens=new), len(rows))
            assert got == [self.greedy(ids, new) for ids in rows]
            rows[:] = [ids + more for ids, more in zip(rows, got, strict=True)]
            unseen[:] = [True] * len(rows)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), after_steps=st.integers(0, 2))
    def give_up_a_step(self, data, after_steps):
        session, rows, unseen = self.pick(data)
        given = self.draw_ids(data, rows, most=20)
        steps = [StepRow(ids, None) for ids in given]
        if session.give_up(StepSession, steps, FULL, after_steps=after_steps):
            for index, ids in enumerate(given):  # it was too late
                rows[index] = rows[index] + ids
                unseen[index] = False

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), after_steps=st.integers(0, 3))
    def give_up_a_generation(self, data, after_steps):
        session, rows, _ = self.pick(data)
        if all(0 < len(ids) < MAX_LENGTH - 5 for ids in rows):
            config = self.engine.config(max_new_tokens=5)
            session.give_up(ContinueSession, config, [5] * len(rows), after_steps=after_steps)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def truncate(self, data):
        session, rows, unseen = self.pick(data)
        lengths = [data.draw(st.integers(0, len(ids))) for ids in rows]
        session.truncate(lengths)
        for index, length in enumerate(lengths):
            unseen[index] &= length == len(rows[index])
            rows[index] = rows[index][:length]

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def fork(self, data):
        session, rows, unseen = self.pick(data)
        indices = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=3))
        if self.fits(len(indices)):
            fork = session.fork(indices)
            self.add(fork, [list(rows[i]) for i in indices], [unseen[i] for i in indices])

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def select(self, data):
        session, rows, unseen = self.pick(data)
        indices = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
        if self.fits(len(indices) - len(rows)):
            session.select(indices)
            rows[:], unseen[:] = [list(rows[i]) for i in indices], [unseen[i] for i in indices]

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def close(self, data):
        session, rows, _ = self.pick(data)
        assert session.rows() == rows
        self.forget(session)

    def forget(self, session: EngineSession) -> None:
        session.close()
        del self.sessions[session.name], self.rows[session.name], self.unseen[session.name]

    def teardown(self) -> None:
        for session in list(self.sessions.values()):
            rows, unseen = self.rows[session.name], self.unseen[session.name]
            assert session.rows() == rows
            given = [[] if pending else [7] for pending in unseen]
            whole = [ids + more for ids, more in zip(rows, given, strict=True)]
            self.compare(session.step(given), whole, [True] * len(rows))
            self.forget(session)
        assert self.engine.engine._scheduler.kv_used_tokens == 0


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt2"])
@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(10, 25, id="10-runs"),
        pytest.param(200, 40, id="200-runs", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
    ],
)
def test_a_session_equals_its_tokens_from_scratch_whatever_was_done_to_it(
    architecture, examples, steps, pair_of: Callable[[str], Pair], record_property
):
    pair_here = pair_of(architecture)
    engine_here = InprocEngine(
        pair_here.folder,
        max_running_sequences=12,
        max_session_rows=MAX_ROWS,
        max_kv_tokens=KV_TOKENS,
        dtype="float32",
    )

    class Machine(SessionMachine):
        pair = pair_here
        engine = engine_here

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    figures = {
        "runs": examples,
        "calls": Machine.calls,
        "compared": Machine.compared,
        "evicted": engine_here.engine._scheduler.num_evicted,
        "largest": Machine.largest,
    }
    for name, value in figures.items():
        record_property(name, value)
    print(architecture, figures)
    assert Machine.compared > examples
    assert figures["evicted"] > 0
