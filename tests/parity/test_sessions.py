"""Sessions that were cut, copied or selected, against a forward pass over their tokens."""

import random
from dataclasses import dataclass
from itertools import count

import pytest
import torch

from model_service.protocol import (
    Cancel,
    CloseSession,
    DescribeSession,
    FlushPrefixCache,
    ForkSession,
    OpenSession,
    SelectSessionRows,
    SequenceSpec,
    StepRow,
    StepSession,
    TruncateSession,
)
from model_service.protocol.generation import ScoreSelection
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import array

from .conftest import Pair
from .test_engine import assert_close

FULL = ScoreSelection(logits=True, amount="full")
LENGTHS = (3, 23, 40)  # both sides of the sliding window
ROOM = 64
REQUEST_IDS = count(10_000)


def tokens(length: int, seed: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(VOCABULARY_SIZE) for _ in range(length)]


@dataclass
class Driven:
    """A session of the real engine."""

    pair: Pair
    name: str = "s"

    def do(self, kind, *arguments):
        self.pair.engine.handle(kind(self.name, *arguments, request_id=next(REQUEST_IDS)))
        *_, event = self.pair.engine.drain()
        return event

    def open(self, prompts: list[list[int]]) -> None:
        specs = [SequenceSpec(prompt, 0) for prompt in prompts]
        self.do(OpenSession, specs, self.pair.engine.config(), 0, ROOM, FULL)

    def rows(self) -> list[list[int]]:
        return self.do(DescribeSession).rows

    def check(self, *given: list[int], look_ahead: bool = False) -> None:
        """Steps, and compares the logits with those of all the tokens from scratch."""
        whole = [row + ids for row, ids in zip(self.rows(), given, strict=True)]
        rows = [StepRow(ids, None) for ids in given]
        answer = self.do(StepSession, rows, FULL, False, False, look_ahead)
        for ids, result in zip(whole, answer.rows, strict=True):
            with torch.inference_mode():
                expected = self.pair.model(torch.tensor([ids])).logits[0, -1]
            assert_close(torch.from_numpy(array(result.scores[0].logits)), expected)


@pytest.fixture(params=["llama", "mistral"])
def session(request, pair_of):
    pair = pair_of(request.param)
    driven = Driven(pair)
    driven.open([tokens(length, length) for length in LENGTHS])
    yield driven
    driven.do(CloseSession)
    # Rows of other tests' calls may lend their tokens still.
    pair.engine.handle(FlushPrefixCache(request_id=next(REQUEST_IDS)))
    pair.engine.drain()
    assert pair.engine.engine._places.used_tokens == 0
    cache = pair.engine.engine._runner.cache
    for layer in cache.slot_layers:
        assert not layer.k.data.any()
        assert not layer.v.data.any()


def test_a_cut_session_equals_its_tokens_from_scratch(session):
    session.do(TruncateSession, [2, 11, 33])
    session.check([1], tokens(5, 1), [2])
    session.do(TruncateSession, [0, 1, 34])
    session.check(tokens(30, 2), [3], [4])


def test_forks_and_their_original_equal_their_tokens_from_scratch(session):
    session.do(ForkSession, ["f"], [2, 0])
    fork = Driven(session.pair, "f")
    fork.check([5], tokens(20, 3))
    session.check([6], [7], [8])
    fork.check([9], [10])
    fork.do(CloseSession)


def test_selected_rows_equal_their_tokens_from_scratch(session):
    session.do(SelectSessionRows, [2, 0, 2, 0])
    session.check([1], [2], [3], tokens(20, 4))
    session.do(SelectSessionRows, [3, 1])
    session.check([5], [6])


def test_after_looking_ahead_a_session_equals_its_tokens_from_scratch(session):
    session.check(tokens(9, 5), [1], [2], look_ahead=True)
    session.check([3], [4], tokens(7, 6))


def test_after_a_step_was_given_up_a_session_equals_its_tokens_from_scratch(session):
    engine = session.pair.engine
    request_id = next(REQUEST_IDS)
    rows = [StepRow(tokens(20, seed), None) for seed in (7, 8, 9)]
    engine.handle(StepSession(session.name, rows, FULL, request_id=request_id))
    engine.engine._scheduler._max_step_tokens, before = (
        25,
        engine.engine._scheduler._max_step_tokens,
    )
    engine.step()
    engine.handle(Cancel(request_id))
    engine.engine._scheduler._max_step_tokens = before
    session.check([1], [2], [3])
