"""From a request to what the engine runs."""

from itertools import combinations

import msgspec
import pytest
from lockstep.v1 import model_service_pb2, scores_pb2, tokens_pb2

from model_service.front.checks import plan as plans
from model_service.front.checks.generation import AskedContinuation, AskedSequences, AskedSession
from model_service.front.checks.opening import AskedOpening
from model_service.front.checks.plan import MAX_SALT_LENGTH, Plan, PlanLimits, read_salt
from model_service.front.checks.prompts import read_prompts
from model_service.front.checks.rows import sequence_seed
from model_service.front.checks.sessions import SessionTerms
from model_service.protocol import EngineInfo
from rpc.errors import (
    ContextLengthExceeded,
    InvalidField,
    KVCacheExceeded,
    TokenIdOutOfRange,
)
from tests.callers import called_by
from tests.fakes.counting_engine import CountingEngine
from vocabulary import Reference
from wire.prompts import Bounds
from wire.violations import Violations

VOCABULARY = Reference("tiny", 0, "ab" * 32, 32)
LIMITS = PlanLimits(max_sequences_per_call=8, max_selected_tokens=16)
BOUNDS = Bounds(max_rows=8, context_length=64)


def info(**changes) -> EngineInfo:
    engine = CountingEngine.__new__(CountingEngine)
    engine.vocabulary_size = VOCABULARY.size
    sizes = {"context_length": 64, "kv_total_tokens": 512}
    return msgspec.structs.replace(engine.info(), **sizes | changes)


def request(*prompts: list[int], config=None, **fields) -> model_service_pb2.GenerateRequest:
    sequences = [tokens_pb2.TokenSequence(ids=ids) for ids in prompts or ([1, 2, 3],)]
    batch = tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=sequences))
    return model_service_pb2.GenerateRequest(prompt=batch, generation_config=config or {}, **fields)


def plan(request, **changes):
    return plans.plan(AskedSequences(request, BOUNDS), VOCABULARY, info(**changes), LIMITS)


def violated(request) -> list[str]:
    with pytest.raises(InvalidField) as caught:
        plan(request)
    return [violation.field for violation in caught.value.violations]


def seeds(planned) -> list[int]:
    return [spec.seed for spec in planned.sequences]


def test_rows_are_ordered_by_prompt_and_then_by_sequence():
    planned = plan(request([1], [2, 3], config={"do_sample": True, "num_return_sequences": 2}))
    assert [spec.prompt_token_ids for spec in planned.sequences] == [[1], [1], [2, 3], [2, 3]]
    assert [planned.indices(row) for row in range(4)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert planned.num_prompt_tokens == 3


def test_the_seed_of_any_row_reproduces_it_alone():
    config = {"do_sample": True, "num_return_sequences": 2, "seed": 5}
    for seed in seeds(plan(request([1], [2], config=config))):
        alone = plan(request([1], config={"do_sample": True, "seed": seed}))
        assert seeds(alone) == [seed]


def test_the_first_row_has_the_seed_of_the_call():
    planned = plan(request([1], [2], config={"seed": 5}))
    assert seeds(planned) == [5, sequence_seed(5, 1, 0)]
    assert planned.effective_config.seed == 5


def test_a_seed_that_was_not_given_is_drawn_and_told():
    first, second = plan(request()), plan(request())
    assert first.seed != second.seed
    assert first.effective_config.seed == first.seed == seeds(first)[0]


def test_seeds_of_prompts_are_those_of_their_calls():
    config = {"do_sample": True, "num_return_sequences": 2}
    together = plan(request([1], [2], config=config, seeds=[8, 9]))
    alone = plan(request([2], config=config | {"seed": 9}))
    assert seeds(together)[2:] == seeds(alone)
    assert seeds(together)[0] == 8
    assert not together.effective_config.HasField("seed")


@pytest.mark.parametrize("given", [[1], [1, 2, 3], [1, -1]])
def test_seeds_must_fit_the_prompts(given):
    assert violated(request([1], [2], seeds=given)) == ["seeds"]


def test_a_seed_beside_seeds_is_refused():
    fields = violated(request([1], config={"seed": 3}, seeds=[1]))
    assert fields == ["generation_config.seed"]


@pytest.mark.parametrize("priority", [-1001, 1001])
def test_a_priority_out_of_range_is_refused(priority):
    assert violated(request(priority=priority)) == ["priority"]


@pytest.mark.parametrize("priority", [-1000, 0, 1000])
def test_a_priority_is_passed_on(priority):
    assert plan(request(priority=priority)).command.priority == priority


def test_too_many_sequences_in_one_call_are_refused():
    assert violated(request(*[[1]] * 9)) == ["prompt"]
    config = {"do_sample": True, "num_return_sequences": 3}
    assert violated(request(*[[1]] * 3, config=config)) == ["prompt"]


@pytest.mark.parametrize("bad", [-1, 32, 2**31 - 1])
def test_a_prompt_id_outside_of_the_vocabulary_is_named(bad):
    with pytest.raises(TokenIdOutOfRange) as caught:
        plan(request([1], [2, bad]))
    metadata = caught.value.metadata
    assert (metadata["row"], metadata["index"], metadata["tokenId"]) == ("1", "1", str(bad))


def test_the_last_id_of_the_vocabulary_is_allowed():
    plan(request([0, 31]))


def test_a_prompt_beyond_the_context_is_refused():
    with pytest.raises(ContextLengthExceeded) as caught:
        plan(request([1], [1] * 64))
    assert caught.value.metadata == {
        "row": "1",
        "promptTokens": "64",
        "newTokens": "1",
        "contextTokens": "64",
    }


def test_new_tokens_beyond_the_context_are_refused():
    with pytest.raises(ContextLengthExceeded):
        plan(request([1] * 10, config={"max_new_tokens": 55}))
    plan(request([1] * 10, config={"max_new_tokens": 54}))


def test_a_default_of_new_tokens_is_lowered_to_the_room_of_the_shortest_prompt():
    planned = plan(request([1] * 60, [1] * 63))
    assert planned.resolved.config.max_new_tokens == 4
    assert planned.effective_config.max_new_tokens == 4


@pytest.mark.parametrize(
    "default",
    [{}, {"max_length": 64}, {"max_length": 1000}, {"max_new_tokens": 4}],
    ids=["max_new_tokens", "max_length", "a longer max_length", "as long"],
)
def test_a_default_that_reaches_the_context_leaves_the_end_to_it(default):
    longest = msgspec.structs.replace(info().default_config, **default)
    planned = plan(request([1] * 60, [1] * 63), default_config=longest)
    assert [spec.max_new_tokens for spec in planned.sequences] == [5, 2]
    assert planned.kv_tokens == 2 * 64
    assert planned.resolved.config.max_new_tokens == 4


def test_a_default_below_the_context_ends_the_row_itself():
    shorter = msgspec.structs.replace(info().default_config, max_new_tokens=3)
    planned = plan(request([1] * 60), default_config=shorter)
    assert [spec.max_new_tokens for spec in planned.sequences] == [3]


def test_a_long_neighbour_does_not_shorten_a_row():
    alone = plan(request([1]))
    beside = plan(request([1], [1] * 63))
    assert beside.resolved.config.max_new_tokens == alone.resolved.config.max_new_tokens


def test_a_row_larger_than_the_kv_cache_is_refused():
    with pytest.raises(KVCacheExceeded) as caught:
        plan(request([1] * 10, config={"max_new_tokens": 11}), kv_total_tokens=20)
    assert caught.value.metadata == {"kvTokens": "21", "limitTokens": "20"}


def test_reserved_tokens_are_counted_over_all_sequences():
    config = {"do_sample": True, "num_return_sequences": 2, "max_new_tokens": 10}
    assert plan(request([1], [1, 2], config=config)).kv_tokens == 2 * (11 + 12)


def test_a_selection_that_asks_for_nothing_is_none():
    planned = plan(request(scores=scores_pb2.ScoreSelection()))
    assert planned.command.selection is None
    assert planned.command.prompt_selection is None


def test_a_response_is_sized_before_it_is_made():
    config = {"max_new_tokens": 10}
    small = plan(request(config=config)).response_bytes
    full = scores_pb2.ScoreSelection(logits=True, scores=True, full=True)
    large = plan(request(config=config, scores=full)).response_bytes
    prompt = plan(request(config=config, prompt_scores=full)).response_bytes
    assert large - small >= 10 * 2 * 32 * 4
    assert prompt - small >= 3 * 2 * 32 * 4


def test_no_more_of_the_prompt_can_be_ignored_than_there_is():
    config = {"repetition_penalty": 1.5, "prompt_ignore_length": 2}
    assert plan(request([1, 2], [3, 4, 5], config=config)).resolved.config.prompt_ignore_length == 2
    assert violated(request([1, 2], [3], config=config)) == [
        "generation_config.prompt_ignore_length"
    ]


GUIDED = {"guidance_scale": 2.0, "negative_prompt": {"ids": [7, 8, 9]}, "max_new_tokens": 10}


def test_a_guided_sequence_takes_two_rows_and_their_kv_cache():
    planned = plan(request([1], [2] * 5, config=GUIDED))
    assert planned.command.num_rows == 4
    assert planned.kv_tokens == (1 + 10) + (5 + 10) + 2 * (3 + 10)
    assert plan(request([1], config={"guidance_scale": 2.0, "max_new_tokens": 10})).kv_tokens == 22


def test_the_rows_of_guided_sequences_count_towards_the_limit_of_a_call():
    assert violated(request(*[[1]] * 5, config=GUIDED)) == ["prompt"]
    plan(request(*[[1]] * 4, config=GUIDED))


def test_guided_rows_larger_than_the_kv_cache_are_refused():
    with pytest.raises(KVCacheExceeded) as caught:
        plan(request([1], config=GUIDED), kv_total_tokens=23)
    assert caught.value.metadata == {"kvTokens": "24", "limitTokens": "23"}
    plan(request([1], config=GUIDED), kv_total_tokens=24)


def test_a_negative_prompt_beyond_the_context_is_refused():
    config = GUIDED | {"negative_prompt": {"ids": [7] * 55}}
    assert violated(request([1], config=config)) == ["generation_config.negative_prompt"]
    plan(request([1], config=config | {"max_new_tokens": 9}))


def test_guidance_needs_two_rows_of_a_step():
    with pytest.raises(InvalidField):
        plan(request([1], config=GUIDED), max_running_sequences=1)


def test_prompt_scores_have_no_guidance():
    full = scores_pb2.ScoreSelection(scores=True, full=True)
    assert violated(request(config=GUIDED, prompt_scores=full)) == ["prompt_scores.scores"]
    traced = scores_pb2.ScoreSelection(processor_trace=True)
    assert violated(request(config=GUIDED, prompt_scores=traced)) == [
        "prompt_scores.processor_trace"
    ]
    plan(request(config=GUIDED, prompt_scores=scores_pb2.ScoreSelection(logits=True, full=True)))


BEAMS = {"num_beams": 3, "do_sample": False, "max_new_tokens": 10}


def test_a_search_takes_a_row_per_beam_and_their_kv_cache():
    planned = plan(request([1], [2] * 5, config=BEAMS | {"num_return_sequences": 2}))
    assert planned.command.num_rows == 6
    assert planned.kv_tokens == 3 * (11 + 15)
    assert [planned.indices(row) for row in range(4)] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_beams_of_all_prompts_count_towards_the_limit_of_a_call():
    assert violated(request(*[[1]] * 3, config=BEAMS)) == ["prompt"]
    plan(request(*[[1]] * 2, config=BEAMS))


def test_no_more_beams_than_a_step_has_rows():
    assert violated(request(config=BEAMS | {"num_beams": 5})) == ["generation_config.num_beams"]
    plan(request(config=BEAMS | {"num_beams": 4}))


def test_beams_that_do_not_fit_the_kv_cache_together_are_refused():
    with pytest.raises(KVCacheExceeded) as caught:
        plan(request([1], config=BEAMS), kv_total_tokens=32)
    assert caught.value.metadata == {"kvTokens": "33", "limitTokens": "32"}
    plan(request([1], config=BEAMS), kv_total_tokens=33)


def test_sequences_of_one_search_have_the_same_seed():
    config = BEAMS | {"do_sample": True, "seed": 7, "num_return_sequences": 2}
    first, second, *others = seeds(plan(request([1], [2], config=config)))
    assert first == second == 7
    assert others == [sequence_seed(7, 1, 0)] * 2


def test_beams_and_guidance_exclude_each_other():
    fields = violated(request(config=BEAMS | {"guidance_scale": 2.0}))
    assert fields == ["generation_config.guidance_scale"]


def test_what_is_kept_of_all_beams_counts_as_response():
    full = scores_pb2.ScoreSelection(scores=True, full=True)
    one = plan(request(config={"max_new_tokens": 10, "do_sample": False}, scores=full))
    beams = plan(request(config=BEAMS, scores=full))
    assert beams.response_bytes > 3 * one.response_bytes
    assert beams.answers_at_once
    assert not one.answers_at_once


def test_no_salt_makes_one_caller_look_like_another():
    pairs = [("", ""), ("", "a"), ("", "1:a"), ("a", ""), ("a", "a"), ("aa", ""), ("1:a", "")]
    salts = []
    for caller, salt in pairs:
        with called_by(caller):
            salts.append(read_salt(salt, Violations()))
    assert all(one != other for one, other in combinations(salts, 2))


@pytest.mark.parametrize("length", [0, MAX_SALT_LENGTH, MAX_SALT_LENGTH + 1])
def test_a_salt_has_a_longest_length(length):
    violations = Violations()
    read_salt("x" * length, violations)
    if length <= MAX_SALT_LENGTH:
        violations.check()
    else:
        with pytest.raises(InvalidField):
            violations.check()


# --- What every kind of call is asked --------------------------------------------------------

TERMS = SessionTerms(ttl_s=300.0, max_ttl_s=3600.0, new_tokens=8)


def ask_sequences(request, engine: EngineInfo) -> Plan:
    return plans.plan(AskedSequences(request, BOUNDS), VOCABULARY, engine, LIMITS)


def ask_session(request, engine: EngineInfo) -> Plan:
    return plans.plan(AskedSession(request, BOUNDS, TERMS), VOCABULARY, engine, LIMITS)


def ask_opening(request, engine: EngineInfo) -> Plan:
    violations = Violations()
    asked = AskedOpening(
        violations=violations,
        rows=read_prompts(request.prompt, violations, BOUNDS),
        config=request.generation_config,
        cache_salt=request.cache_salt,
        max_length=64,
    )
    return plans.plan(asked, VOCABULARY, engine, LIMITS)


def ask_continuation(request, engine: EngineInfo) -> Plan:
    session = ask_opening(request_without_extras(request), engine)
    rows = [spec.prompt_token_ids for spec in session.sequences]
    request.ClearField("prompt")
    asked = AskedContinuation(request, session, rows, VOCABULARY)
    return plans.plan(asked, VOCABULARY, engine, LIMITS)


def request_without_extras(given) -> model_service_pb2.GenerateRequest:
    return model_service_pb2.GenerateRequest(prompt=given.prompt)


KINDS = [ask_sequences, ask_session, ask_opening, ask_continuation]
GENERATIONS = [ask_sequences, ask_session, ask_continuation]


@pytest.mark.parametrize("ask", KINDS)
def test_no_kind_of_call_ignores_more_of_the_prompt_than_there_is(ask):
    config = {"repetition_penalty": 1.5, "prompt_ignore_length": 3}
    ask(request([1, 2, 3], config=config), info())
    with pytest.raises(InvalidField) as caught:
        ask(request([1, 2], config=config), info())
    assert [v.field for v in caught.value.violations] == ["generation_config.prompt_ignore_length"]


@pytest.mark.parametrize("ask", KINDS)
def test_no_kind_of_call_takes_a_salt_that_is_too_long(ask):
    with pytest.raises(InvalidField) as caught:
        ask(request(cache_salt="x" * (MAX_SALT_LENGTH + 1)), info())
    assert [v.field for v in caught.value.violations] == ["cache_salt"]


@pytest.mark.parametrize("ask", GENERATIONS)
def test_no_generation_takes_a_priority_out_of_range(ask):
    with pytest.raises(InvalidField) as caught:
        ask(request(priority=1001), info())
    assert [v.field for v in caught.value.violations] == ["priority"]


@pytest.mark.parametrize("ask", [ask_session, ask_opening])
def test_no_session_reserves_more_than_one_may(ask):
    with pytest.raises(KVCacheExceeded) as caught:
        ask(request(*[[1]] * 4, keep_session={"max_length": 64}), info(kv_session_tokens=255))
    assert caught.value.metadata == {"kvTokens": "256", "limitTokens": "255"}
    ask(request(*[[1]] * 4, keep_session={"max_length": 64}), info(kv_session_tokens=256))


@pytest.mark.parametrize("ttl", [{"seconds": 0}, {"seconds": 1, "nanos": 10**9}])
def test_what_is_wrong_with_a_kept_session_is_named_with_all_else(ttl):
    keep = {"ttl": ttl, "max_length": 2}
    with pytest.raises(InvalidField) as caught:
        ask_session(request(config={"top_p": 2.0}, keep_session=keep, priority=1001), info())
    assert {v.field for v in caught.value.violations} == {
        "generation_config.top_p",
        "keep_session.ttl",
        "keep_session.max_length",
        "priority",
    }


@pytest.mark.parametrize("ask", [ask_opening, ask_continuation])
def test_rows_without_padding_have_none_to_count(ask):
    config = {"lengths_include_padding": True, "max_length": 20}
    with pytest.raises(InvalidField) as caught:
        ask(request(config=config), info())
    assert [v.field for v in caught.value.violations] == [
        "generation_config.lengths_include_padding"
    ]
    ask(request(config=config | {"lenient": True}), info())
