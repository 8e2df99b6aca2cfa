"""What fails for one row ends that row: faults are injected wherever rows are worked on."""

import pytest
import torch

from model_service.engine.calls import (
    beam_group,
    beams,
    generate_calls,
    given_tokens,
    sequence_building,
    session_steps,
)
from model_service.engine.sampling import processors, sampler
from model_service.engine.sampling.choosing import Choosing, Draw
from model_service.engine.sequences.prompt_lookup import PromptLookup
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol import Rejected, SessionAnswer
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.counting import CountingEngine, finish, tokens

FULL = ScoreSelection(logits=True, scores=True, amount="full")
SAMPLED = {"do_sample": True, "top_k": 1}
PROCESSED = {"suppress_tokens": (0,)}
BY_REFERENCE = {**SAMPLED, "seed_mode": "torch"}
SEARCH = {"num_beams": 2}

FAILS, HOLDS = 1, 2  # requests: one that fails, and its neighbour
FIRST_PROMPT = [4, 4]

ERRORS = [torch.OutOfMemoryError("out of memory"), MemoryError(), ZeroDivisionError("a bug")]


def is_about_the_first(argument: object) -> bool:
    if isinstance(argument, Sequence):
        return argument.call.request_id == FAILS
    if isinstance(argument, Draw):
        return argument.token_ids[:2] == FIRST_PROMPT
    if isinstance(argument, Choosing):
        return argument.prompt == tuple(FIRST_PROMPT)
    if isinstance(argument, dict):
        return any(map(is_about_the_first, argument.values()))
    if isinstance(argument, list | tuple):
        return argument[:2] == FIRST_PROMPT or any(map(is_about_the_first, argument))
    return getattr(argument, "request_id", None) == FAILS


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def breaks(request, monkeypatch):
    """Makes a function fail for the first request, and for no other."""

    def replace(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def replaced(*args, **kwargs):
            if any(map(is_about_the_first, (*args, *kwargs.values()))):
                raise request.param
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, replaced)

    return replace


def both(config: dict | None = None, **arguments):
    """Runs the first request beside its neighbour, which chooses in the same way."""
    engine = CountingEngine(max_running=6)
    engine.generate(FAILS, FIRST_PROMPT, new=4, config=config or {}, **arguments)
    engine.generate(HOLDS, [20], new=4, config=config or {}, **arguments)
    return engine.run()


def check(events, log: str) -> None:
    """Checks that one row has ended by a failure that the log has, and its neighbour has not."""
    ended = finish(events, FAILS)
    assert ended.reason == "error"
    assert ended.failure.error == "InternalError"
    assert ended.failure.arguments["request_id"] in log
    assert tokens(events, FAILS) == []
    assert tokens(events, HOLDS) == [21, 22, 23, 24]
    assert finish(events, HOLDS).reason == "max_new_tokens"


@pytest.mark.parametrize(
    ("owner", "name", "config"),
    [
        (sampler, "_process", PROCESSED),
        (sampler, "_process", SAMPLED | PROCESSED),
        (sampler, "_choose_greedy", {}),
        (sampler, "_choose_sampled", SAMPLED),
        (sampler, "draw_from", SAMPLED),
        (sampler, "_by_reference", BY_REFERENCE),
        (processors, "build", BY_REFERENCE),
        (processors, "_apply", BY_REFERENCE),
        (sampler, "_score", SEARCH),
    ],
)
def test_a_row_that_cannot_be_chosen_for_ends_alone(breaks, caplog, owner, name, config):
    breaks(owner, name)
    check(both(config), caplog.text)


@pytest.mark.parametrize(
    ("owner", "name", "config"),
    [
        (generate_calls, "describe", {}),
        (beam_group, "describe", SEARCH),
        (Sequence, "finish_reason", {}),
        (Sequence, "finish_reason", SEARCH),
        (beam_group.BeamGroup, "arrive", SEARCH),
    ],
)
def test_a_row_that_cannot_be_described_or_ended_ends_alone(breaks, caplog, owner, name, config):
    breaks(owner, name)
    check(both(config, selection=FULL), caplog.text)


@pytest.mark.parametrize("config", [{}, SEARCH])
def test_a_row_whose_prompt_cannot_be_described_ends_alone(breaks, caplog, config):
    breaks(given_tokens, "describe")
    check(both(config, prompt_selection=FULL), caplog.text)


def test_a_search_whose_rows_cannot_be_moved_ends_alone(caplog, monkeypatch):
    def move(group, copy):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(beams.BeamGroup, "move", move)
    engine = CountingEngine(max_running=6)
    engine.generate(FAILS, FIRST_PROMPT, new=4, config=SEARCH)
    engine.generate(HOLDS, [20], new=4)
    check(engine.run(), caplog.text)
    assert engine.scheduler.num_running == 0


def test_a_row_that_cannot_be_drafted_goes_on_without(breaks):
    breaks(PromptLookup, "propose")
    events = both({"prompt_lookup_num_tokens": 2})
    assert tokens(events, FAILS) == [5, 6, 7, 8]
    assert tokens(events, HOLDS) == [21, 22, 23, 24]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(session_steps, "describe"), (Sequence, "finish_reason"), (processors, "scores")],
)
def test_a_step_of_a_session_that_fails_for_a_row_says_so_of_that_row(
    monkeypatch, caplog, owner, name
):
    engine = CountingEngine()
    engine.open(3, [4], [20])
    engine.run()
    original = getattr(owner, name)

    def replaced(subject, *args, **kwargs):
        choosing = subject if isinstance(subject, Choosing) else subject.choosing
        if choosing.prompt == (4,):
            raise MemoryError
        return original(subject, *args, **kwargs)

    monkeypatch.setattr(owner, name, replaced)
    engine.step_session(4, [5], [21], sample=True, scores=True, amount="full")
    (answer,) = [event for event in engine.run() if isinstance(event, SessionAnswer)]
    failed, held = answer.rows
    assert failed.failure.arguments["request_id"] in caplog.text
    assert held.failure is None
    assert held.sampled_token_id == 22


def test_a_call_that_cannot_be_built_is_rejected_alone(monkeypatch, caplog):
    engine = CountingEngine()
    engine.generate(HOLDS, [20], new=4)
    events = engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(sequence_building, "config_of_row", None)
        engine.generate(FAILS, FIRST_PROMPT, new=4)
    events += engine.run()
    (rejected,) = [event for event in events if isinstance(event, Rejected)]
    assert rejected.request_id == FAILS
    assert rejected.failure.arguments["request_id"] in caplog.text
    assert tokens(events, HOLDS) == [21, 22, 23, 24]
