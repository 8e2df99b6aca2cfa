"""Drafts change how many steps a sequence takes, and nothing else."""

import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_service.engine.calls.speculation import MAX_DECODE_TOKENS
from model_service.protocol import Cancel, FlushPrefixCache
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.counting import BEST, CountingEngine, finish, tokens

COUNTED = [*range(10), 3]  # 4 followed 3 before, and does again


def lookup(count: int = 8, **config: object) -> dict[str, object]:
    return {"prompt_lookup_num_tokens": count, **config}


def test_drafts_that_are_right_are_tokens_of_the_same_step():
    engine = CountingEngine()
    engine.generate(1, COUNTED, new=6, config=lookup(3))
    report = engine.engine.step(), engine.engine.step()
    assert tokens(report[0].events, 1) == [4]
    assert tokens(report[1].events, 1) == [5, 6, 7, 8]
    assert (report[1].stats.drafted, report[1].stats.accepted) == (3, 3)
    assert report[1].stats.decode_rows == 1
    assert tokens(engine.run(), 1) == [9]
    assert engine.runner.steps == [[(1, 11)], [(1, 4)], [(1, 1)]], "no token passes twice"


def test_a_wrong_draft_ends_the_step_with_the_right_token():
    engine = CountingEngine()
    engine.generate(1, [7, 8, 2, 7], new=6, config=lookup(4))
    events = engine.step()
    report = engine.engine.step()  # guesses 2, 7, 8, 2 after 8, where 9 comes
    assert tokens(events + report.events, 1) == [8, 9]
    assert (report.stats.drafted, report.stats.accepted) == (4, 0)
    events = engine.run()
    assert tokens(events, 1) == [10, 11, 12, 13]
    assert finish(events, 1).reason == "max_new_tokens"


def test_a_token_that_ends_the_sequence_ends_it_within_the_drafts():
    engine = CountingEngine()
    engine.generate(1, COUNTED, new=50, config=lookup(6, eos_token_ids=(6,)))
    events = engine.run()
    assert tokens(events, 1) == [4, 5, 6]
    assert finish(events, 1).reason == "eos_token"
    assert finish(events, 1).steps == 2
    assert len(engine.runner.free_slots) == 12


def test_drafts_never_go_beyond_the_tokens_reserved():
    for new in range(1, 12):
        engine = CountingEngine()
        engine.generate(1, COUNTED, new=new, config=lookup(8))
        assert len(tokens(engine.run(), 1)) == new  # and the runner checks every write


def test_many_decoding_rows_leave_no_room_for_drafts():
    engine = CountingEngine(max_running=MAX_DECODE_TOKENS, kv_tokens=10_000)
    engine.generate(1, *[COUNTED] * (MAX_DECODE_TOKENS - 1), new=30, config=lookup(8))
    engine.generate(2, [5], new=2)
    engine.step()
    report = engine.engine.step()
    assert report.stats.decode_rows == MAX_DECODE_TOKENS
    assert report.stats.drafted == 0


def test_rows_share_the_room_for_drafts():
    engine = CountingEngine()
    engine.generate(1, COUNTED, COUNTED, new=30, config=lookup(32))
    engine.step()
    report = engine.engine.step()
    assert report.stats.drafted + 2 == MAX_DECODE_TOKENS


def test_a_model_that_cannot_forget_gets_no_drafts():
    engine = CountingEngine()
    engine.engine._speculation._takes_drafts = False
    engine.generate(1, COUNTED, new=6, config=lookup(3))
    assert tokens(engine.run(), 1) == [4, 5, 6, 7, 8, 9]
    assert len(engine.runner.steps) == 6


def test_every_token_of_a_step_has_its_own_distribution():
    engine = CountingEngine()
    selection = ScoreSelection(logits=True, scores=True, amount="full")
    engine.generate(1, COUNTED, new=6, config=lookup(5), selection=selection)
    events = engine.run()
    scores = [position for event in events for position in event.scores]
    assert [position.position for position in scores] == list(range(11, 17))
    assert len(engine.runner.steps) < 6
    for position in scores:
        row = np.frombuffer(position.logits, "<f4")
        assert row.argmax() == position.token_id
        assert row.max() == BEST


def test_a_call_that_is_cancelled_leaves_a_clean_slot():
    engine = CountingEngine()
    engine.generate(1, [7, 8, 2, 7], new=50, config=lookup(4))
    engine.step()
    engine.step()  # drafts were written behind the tokens
    engine.engine.handle(Cancel(1))
    engine.generate(2, [4], new=2)
    assert tokens(engine.run(), 2) == [5, 6]  # the runner checks that the slot was clean


def few_words(engine: CountingEngine, seed: int) -> None:
    """Makes the model one of six tokens that repeats itself, and not always."""
    table = torch.full((32, 32), -1e9)
    table[:, :6] = torch.randn(32, 6, generator=torch.Generator().manual_seed(seed)) * 2
    engine.runner._logits = lambda _seq, token_id: table[token_id]


CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "do_sample": st.booleans(),
        "temperature": st.floats(0.2, 2.0),
        "top_k": st.integers(0, 6),
        "top_p": st.floats(0.1, 1.0),
        "repetition_penalty": st.floats(0.8, 1.5),
        "frequency_penalty": st.floats(-1.0, 1.0),
        "no_repeat_ngram_size": st.integers(0, 5),
        "min_new_tokens": st.integers(0, 6),
        "eos_token_ids": st.just((0,)),
        "stop_sequences": st.just(((1, 2), (3, 3, 3))),
        "stop_strings": st.just(("bab", "eaf")),
        "forced_prefix": st.just((4, 5, 4)),
        "suppress_tokens": st.just((2,)),
        "remove_invalid_values": st.booleans(),
    },
)


@given(
    seed=st.integers(0, 10_000),
    config=CONFIGS,
    count=st.integers(1, 32),
    longest=st.integers(1, 32),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_tokens_ends_and_scores_are_those_without_drafts(seed, config, count, longest, lengths):
    generator = random.Random(seed)
    prompts = [[generator.randrange(6) for _ in range(length)] for length in lengths]
    new = [generator.randrange(1, 40) for _ in prompts]
    drafting = {"prompt_lookup_num_tokens": count, "max_matching_ngram_size": longest}
    selection = ScoreSelection(logits=True, scores=True, amount="full", rank=True)
    outcomes = []
    for extra in ({}, drafting):
        engine = CountingEngine()
        few_words(engine, seed)
        for request_id, (prompt, most) in enumerate(zip(prompts, new, strict=True)):
            wanted = selection if request_id == 1 else None
            engine.generate(request_id, prompt, new=most, config=config | extra, selection=wanted)
        events = engine.run()
        ends = [finish(events, request_id) for request_id in range(len(prompts))]
        outcomes.append(
            (
                [tokens(events, request_id) for request_id in range(len(prompts))],
                [(end.reason, end.stop_string, end.failure) for end in ends],
                [scores for event in events for scores in event.scores],
            )
        )
        engine.do(FlushPrefixCache(request_id=99))  # the runner checks that slots are clean
        assert len(engine.runner.free_slots) == 12
    assert outcomes[0] == outcomes[1]


def test_the_model_of_the_test_above_accepts_and_refuses_drafts():
    engine = CountingEngine()
    few_words(engine, 3)
    engine.generate(1, [0], new=150, config=lookup(4, do_sample=True))
    drafted = accepted = 0
    while (report := engine.engine.step()) is not None:
        drafted += report.stats.drafted
        accepted += report.stats.accepted
    assert 20 < accepted < drafted - 20
