"""Nothing that a call of a session asked for, or that came of it, is left for the next one."""

import msgspec
import pytest

from model_service.protocol import (
    Cancel,
    Event,
    SequenceTokens,
    SessionAnswer,
    TruncateSession,
)
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.counting import CountingEngine

PROMPTS = [[*range(20)], [9] * 17]
LENGTHS = [len(prompt) for prompt in PROMPTS]
MAX_LENGTH = 60

SHARP = {"do_sample": True, "temperature": 0.01, "stop_token_ids": (25,)}
EVERYTHING = {"logits": True, "scores": True, "amount": "full", "positions": "all"}
LISTED = {"logits": True, "positions": "list", "position_list": (0, 2)}


def step(*rows: list[int], **options: object):
    def call(engine: CountingEngine, request_id: int) -> None:
        engine.step_session(request_id, *rows, **options)

    return call


def generation(**options: object):
    def call(engine: CountingEngine, request_id: int) -> None:
        engine.continue_session(request_id, **options)

    return call


def given_up_after(num_steps: int, begin):
    def call(engine: CountingEngine, request_id: int) -> None:
        begin(engine, request_id)
        for _ in range(num_steps):
            engine.step()
        engine.engine.handle(Cancel(request_id))

    return call


def without_numbers(begin):
    """A call whose logits are not numbers."""

    def call(engine: CountingEngine, request_id: int) -> None:
        engine.runner.poisoned.add(request_id)
        begin(engine, request_id)
        engine.run()

    return call


def after_eviction(begin):
    def call(engine: CountingEngine, request_id: int) -> None:
        evict(engine)
        begin(engine, request_id)

    return call


def evict(engine: CountingEngine) -> None:
    """Takes the places of both rows. What they held is kept beside those who need the room."""
    engine.generate(99, [30], new=184, cache_salt=None, config={"max_time": 1e-9})
    engine.run()
    assert [seq.slot for seq in engine.session().rows] == [None, None]


LONG = [7] * 9  # in two rows more than a step takes
FORMER = {
    "a step": step([5], [6]),
    "a step of one row": step([5], []),
    "a step with scores of all its tokens": step([5, 6, 7], [8], **EVERYTHING),
    "a step with scores of some of its tokens": step([5, 6, 7], [8, 9, 10], **LISTED),
    "a step that chooses": step([5], [6], sample=True, append=True),
    "a look ahead": step([5], [6], look_ahead=True),
    "a step of rows that had lost their places": after_eviction(step([5], [6])),
    "a step that was given up": given_up_after(1, step(LONG, LONG, **EVERYTHING)),
    "a step that failed": without_numbers(step([5], [6], sample=True, **EVERYTHING)),
    "a generation": generation(new=3, selection=ScoreSelection(logits=True, amount="full")),
    "a generation of its own": generation(new=9, config={**SHARP, "max_time": 1e-9}),
    "a generation that was given up": given_up_after(2, generation(new=5, config=SHARP)),
    "a generation that failed": without_numbers(generation(new=5, config=SHARP)),
}
LATER = {
    "a step": step([5], [6]),
    "a step of one row": step([], [6]),
    "a step with scores of all its tokens": step([5, 6, 7], [8], **EVERYTHING),
    "a step with scores of some of its tokens": step([5, 6, 7], [8, 9, 10], **LISTED),
    "a step that chooses": step([24], [6], sample=True, append=True),
    "a generation": generation(new=4),
    "a generation of its own": generation(new=4, config=SHARP),
    "a generation with scores": generation(new=4, selection=ScoreSelection(scores=True)),
}


def opened(salt: str | None) -> CountingEngine:
    engine = CountingEngine(kv_tokens=240, chunk_tokens=16)
    engine.open(1, *PROMPTS, max_length=MAX_LENGTH, salt=salt)
    engine.run()
    return engine


def answered(engine: CountingEngine, later: str, *, evicted: bool) -> list[Event]:
    """What the call `later` is answered, but for how long it took."""
    engine.do(TruncateSession("s", LENGTHS, request_id=10))
    if evicted:
        evict(engine)
    LATER[later](engine, 12)
    events = engine.run()
    for event in events:
        if isinstance(event, SequenceTokens) and event.finish is not None:
            times = {"queue_s": 0.0, "prefill_s": 0.0, "decode_s": 0.0}
            event.finish = msgspec.structs.replace(event.finish, **times)
        elif isinstance(event, SessionAnswer):
            event.queue_s = event.run_s = 0.0
    return events


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("former", FORMER)
def test_a_call_is_answered_as_if_it_were_the_first(former, later, evicted):
    salt = None if "failed" in former else ""  # nobody starts from rows that have failed
    first, next_one = opened(salt), opened(salt)
    FORMER[former](next_one, 2)
    next_one.run()
    expected = answered(first, later, evicted=evicted)
    assert answered(next_one, later, evicted=evicted) == expected
