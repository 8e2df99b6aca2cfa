"""What a prompt reuses of the ones before it, and what it must not."""

import pytest

from model_service.engine.schedule import prefix_cache
from model_service.engine.schedule.prefix_cache import Donor, PrefixCache, common_length
from model_service.protocol import (
    Cancel,
    CloseSession,
    FlushPrefixCache,
    PrefixCacheFlushed,
    TruncateSession,
)
from model_service.protocol.generation import ScoreSelection
from tests.unit.model_service.engine.counting import CountingEngine, finish, tokens

LONG = [7, 3, 9, 1] * 10  # 40 tokens
OTHER = [8, 3, 9, 1] * 10


def computed(engine: CountingEngine, request_id: int) -> int:
    """Tokens of a call that passed through the model."""
    return sum(length for step in engine.runner.steps for ids, length in step if ids == request_id)


def after(first: list[int], second: list[int], **arguments) -> CountingEngine:
    """An engine that has run one prompt to its end, then another for one token."""
    engine = CountingEngine()
    engine.generate(1, first, new=1)
    engine.run()
    engine.generate(2, second, new=1, **arguments)
    return engine


@pytest.mark.parametrize("size", [0, 1, 7, 39, 40])
def test_the_common_length_of_two_lists_is_where_they_first_differ(size):
    assert common_length(LONG, [*LONG[:size], 31, 31], 40) == size
    assert common_length([*LONG[:size], 31, 31], LONG, size + 1) == size
    assert common_length(LONG, LONG, size) == size


def test_a_prompt_that_begins_like_an_earlier_one_computes_only_the_rest():
    engine = after(LONG, [*LONG[:30], 20, 21])
    events = engine.run()
    assert tokens(events, 2) == [22]
    assert finish(events, 2).cached_prompt_tokens == 30
    assert computed(engine, 2) == 2


def test_the_last_prompt_token_is_always_computed():
    engine = after(LONG, LONG)
    assert finish(engine.run(), 2).cached_prompt_tokens == 39
    assert computed(engine, 2) == 1


def test_a_conversation_reuses_the_answer_too():
    engine = CountingEngine()
    engine.generate(1, LONG, new=5)
    answer = tokens(engine.run(), 1)
    engine.generate(2, [*LONG, *answer, 20], new=1)
    assert finish(engine.run(), 2).cached_prompt_tokens == 44  # the last answer token never passed


def test_a_prompt_with_little_in_common_is_computed_whole():
    little = LONG[: prefix_cache.MIN_TOKENS - 1]
    engine = after(LONG, [*little, *OTHER])
    assert finish(engine.run(), 2).cached_prompt_tokens == 0


@pytest.mark.parametrize(
    ("mine", "theirs"), [("a", "b"), ("", "a"), ("a", ""), (None, ""), ("", None)]
)
def test_nothing_is_reused_across_salts(mine, theirs):
    engine = CountingEngine()
    engine.generate(1, LONG, new=1, cache_salt=theirs)
    engine.run()
    engine.generate(2, LONG, new=1, cache_salt=mine)
    assert finish(engine.run(), 2).cached_prompt_tokens == 0
    assert computed(engine, 2) == 40


def test_equal_salts_share():
    engine = CountingEngine()
    for request_id in (1, 2):
        engine.generate(request_id, LONG, new=1, cache_salt="a")
        events = engine.run()
    assert finish(events, 2).cached_prompt_tokens == 39


def test_a_prompt_that_opts_out_leaves_nothing_behind():
    engine = CountingEngine()
    engine.generate(1, LONG, new=1, cache_salt=None)
    engine.run()
    assert engine.places.donor_tokens == 0
    assert len(engine.runner.free_slots) == 12


def test_a_running_sequence_lends_its_prompt():
    engine = CountingEngine()
    engine.generate(1, LONG, new=50)
    engine.step()
    engine.generate(2, LONG, new=2)
    events = engine.run()
    assert finish(events, 2).cached_prompt_tokens == 39
    assert len(tokens(events, 1)) == 49


def test_an_idle_session_lends_what_it_has():
    engine = CountingEngine()
    engine.open(1, LONG, max_length=60)
    engine.run()
    engine.generate(2, LONG, new=2)
    assert finish(engine.run(), 2).cached_prompt_tokens == 39


def test_a_session_reuses_what_others_left_and_says_so():
    engine = CountingEngine()
    engine.generate(1, LONG, new=1)
    engine.run()
    engine.open(2, LONG, OTHER, max_length=60)
    (answer,) = engine.run()
    assert answer.cached_tokens == 39
    assert not answer.recomputed


def test_equal_prompts_of_one_call_are_computed_once():
    engine = CountingEngine()
    engine.generate(1, LONG, LONG, LONG, new=3)
    events = engine.run()
    assert [finish(events, 1, row).cached_prompt_tokens for row in range(3)] == [0, 39, 39]
    assert [len(tokens(events, 1, row)) for row in range(3)] == [3, 3, 3]
    assert computed(engine, 1) == 40 + 1 + 1 + 3 * 2


@pytest.mark.parametrize(("mine", "theirs"), [("a", "b"), (None, None), (None, "")])
def test_nobody_waits_for_the_prompt_of_another_salt(mine, theirs):
    engine = CountingEngine()
    engine.generate(1, LONG, new=1, cache_salt=mine)
    engine.generate(2, LONG, new=1, cache_salt=theirs)
    engine.run()
    assert engine.runner.steps == [[(1, 40), (2, 40)]]


def test_a_prompt_waits_only_for_as_much_as_it_shares():
    engine = CountingEngine(chunk_tokens=16)
    engine.generate(1, LONG + OTHER, new=1)
    engine.generate(2, [*LONG[:32], 20], new=1)
    engine.run()
    second = next(i for i, step in enumerate(engine.runner.steps) if (2, 1) in step)
    assert second == 2  # 32 tokens later, while the first prompt goes on
    assert computed(engine, 2) == 1


def test_whoever_waited_for_a_prompt_that_is_cancelled_computes_it():
    engine = CountingEngine(chunk_tokens=16)
    engine.generate(1, LONG, new=1, cache_salt="a")
    engine.generate(2, LONG, new=1, cache_salt="a")
    engine.step()
    engine.engine.handle(Cancel(1))
    events = engine.run()
    assert tokens(events, 2) == [2]
    assert finish(events, 2).cached_prompt_tokens == 16  # what had been computed by then


def test_a_prompt_whose_distributions_are_wanted_is_computed():
    everything = ScoreSelection(logits=True, positions="all")
    engine = after(LONG, LONG, prompt_selection=everything)
    events = engine.run()
    assert finish(events, 2).cached_prompt_tokens == 0
    assert len([s for e in events for s in e.prompt_scores]) == 39


def test_a_prompt_is_reused_up_to_the_first_distribution_that_is_wanted():
    some = ScoreSelection(logits=True, positions="list", position_list=(30, 32))
    engine = after(LONG, LONG, prompt_selection=some)
    events = engine.run()
    assert finish(events, 2).cached_prompt_tokens == 30
    assert [s.position for e in events for s in e.prompt_scores] == [31, 33]


def test_what_gave_logits_that_are_not_numbers_is_not_reused():
    engine = CountingEngine()
    engine.runner.poisoned |= {1, 2}
    engine.generate(1, LONG, new=1)
    engine.open(2, LONG, max_length=60)
    engine.run()
    engine.generate(3, LONG, new=1)
    events = engine.run()
    assert tokens(events, 3) == [2]
    assert finish(events, 3).cached_prompt_tokens == 0


def test_a_row_of_a_session_that_was_cut_lends_no_more_than_is_left():
    engine = CountingEngine()
    engine.open(1, LONG, max_length=60)
    engine.run()
    engine.do(TruncateSession("s", [20], request_id=2))
    engine.step_session(3, OTHER[:20])
    engine.run()
    engine.generate(4, LONG, new=1)
    assert finish(engine.run(), 4).cached_prompt_tokens == 20


# --- Room ----------------------------------------------------------------------------------------


def test_donors_make_way_for_sequences_the_one_used_longest_ago_first():
    engine = CountingEngine(kv_tokens=150)
    engine.generate(1, LONG, new=1)
    engine.generate(2, OTHER, new=1)
    engine.run()
    engine.generate(3, [*LONG[:20], 20], new=1)  # makes the first the last to go
    engine.run()
    engine.generate(4, [5], new=60)
    engine.run()
    engine.generate(5, LONG, new=1)
    engine.generate(6, OTHER, new=1)
    events = engine.run()
    assert finish(events, 5).cached_prompt_tokens == 39
    assert finish(events, 6).cached_prompt_tokens == 0


def test_memory_is_never_promised_twice():
    engine = CountingEngine(kv_tokens=100)
    for request_id in range(1, 9):
        engine.generate(request_id, [request_id] * 30, new=30)
        while engine.engine.step() is not None:
            used = engine.places.used_tokens + engine.places.donor_tokens
            written = sum(len(held) for held in engine.runner.written.values())
            assert written <= used <= 100


def test_donors_make_way_for_slots():
    engine = CountingEngine(max_running=4, kv_tokens=10_000)
    for request_id in range(20):
        engine.generate(request_id, [request_id] * 30, new=1)
        engine.run()
    assert len(engine.runner.free_slots) == 0
    engine.generate(99, [1], [2], [3], [4], new=2)
    assert len(tokens(engine.run(), 99, 3)) == 2


def test_running_sequences_stay_in_the_lowest_slots():
    engine = CountingEngine(max_running=4, kv_tokens=10_000)
    for request_id in range(4):
        engine.generate(request_id, [request_id] * 30, new=1)
        engine.run()
    engine.generate(99, [20], [21], new=9)
    engine.step()
    assert [seq.slot for seq in engine.scheduler.active] == [0, 1]
    engine.run()
    engine.generate(100, [0] * 30, new=1)  # its donor was moved, not lost
    assert finish(engine.run(), 100).cached_prompt_tokens == 29


def test_a_donor_that_another_one_contains_is_dropped():
    cache = PrefixCache()
    short, long = Donor(LONG[:20], "", 0, 20), Donor(LONG, "", 1, 40)
    foreign = Donor(LONG, "a", 2, 40)
    assert cache.add(short) == []
    assert cache.add(foreign) == []
    assert cache.add(long) == [short]
    assert cache.add(Donor(LONG[:30], "", 3, 30))[0].slot == 3
    assert cache.donors == [foreign, long]
    assert cache.num_tokens == 80


def test_tokens_are_compared_even_where_a_hash_would_be_equal():
    cache = PrefixCache()
    cache.add(Donor([hash(-1)] * 20, "", 0, 20))
    assert hash(-1) == hash(-2)
    assert cache.best([-1] * 20, "", 20, []) is None


# --- Flushing ------------------------------------------------------------------------------------


def test_flushing_drops_what_is_kept_and_says_how_much():
    engine = CountingEngine()
    engine.generate(1, LONG, new=1)
    engine.run()
    assert engine.do(FlushPrefixCache(request_id=2)) == [PrefixCacheFlushed(2, 40)]
    assert engine.places.donor_tokens == 0
    assert len(engine.runner.free_slots) == 12
    assert not any(engine.runner.written.values())


def test_nothing_from_before_a_flush_is_reused():
    engine = CountingEngine()
    engine.open(1, LONG, max_length=60)
    engine.generate(2, OTHER, new=30)
    engine.step()
    engine.engine.handle(FlushPrefixCache(request_id=3))
    engine.generate(4, LONG, new=1)
    engine.generate(5, OTHER, new=1)
    events = engine.run()
    engine.do(CloseSession("s", request_id=6))
    engine.generate(7, LONG, new=1)
    assert finish(events, 4).cached_prompt_tokens == 0
    assert finish(events, 5).cached_prompt_tokens == 0
    assert finish(engine.run(), 7).cached_prompt_tokens == 39  # from the fourth
