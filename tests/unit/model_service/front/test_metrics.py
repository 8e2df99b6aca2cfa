"""What the front counts."""

from itertools import pairwise
from typing import get_args

import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry

from model_service.front.metrics import ModelMetrics
from model_service.front.metrics.families import LATENCY_BUCKETS_S
from model_service.protocol import Finish, GraphState, GraphStatus, StepStats
from model_service.protocol.generation import FinishReason
from rpc import errors

MODEL = {"model_name": "tiny"}

# Known only once there is a model, or a tokenizer service to follow.
LATER = {
    "lockstep_model_parameters",
    "lockstep_model_cache_config",
    "lockstep_model_vocabulary_follower_connected",
    "lockstep_model_vocabulary_lag_revisions",
    "lockstep_model_vocabulary_follower_silence_seconds",
}


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return ModelMetrics(registry, "tiny")


def value(registry, name, **labels):
    return registry.get_sample_value(f"lockstep_model_{name}", MODEL | labels)


def test_every_metric_has_its_series_before_anything_happens(registry, metrics):
    assert {family.name for family in registry.collect() if not family.samples} == LATER


def test_no_series_says_when_another_was_made(registry, metrics):
    names = [sample.name for family in registry.collect() for sample in family.samples]
    assert not [name for name in names if name.endswith("_created")]


def test_latencies_are_told_apart_from_a_tenth_of_a_millisecond_to_fifty():
    fine = [bound for bound in LATENCY_BUCKETS_S if bound <= 0.05]
    assert (fine[0], fine[-1]) == (0.0001, 0.05)
    assert all(above <= 2.5 * below for below, above in pairwise(fine))


@pytest.mark.parametrize("reason", get_args(FinishReason))
def test_every_way_in_which_a_sequence_can_end_is_counted(reason, registry, metrics):
    metrics.generations.finished("generate", Finish(reason))
    (family,) = [f for f in registry.collect() if f.name == "lockstep_model_requests_finished"]
    assert sum(s.value for s in family.samples if s.name.endswith("_total")) == 1


def test_a_step_is_counted_once_with_all_its_tokens(registry, metrics):
    stats = StepStats(0.1, 2, 30, 0.08, 0.01, drafted=5, accepted=3)
    metrics.engine.stepped(structs.replace(stats, assistant_drafted=4, assistant_accepted=2))
    names = (
        "batch_tokens_count",
        "batch_tokens_sum",
        "batch_sequences_sum",
        "drafts_total",
        "accepted_drafts_total",
        "assistant_drafts_total",
        "accepted_assistant_drafts_total",
    )
    assert [value(registry, name) for name in names] == [1, 37, 2, 5, 3, 4, 2]


def test_steps_are_counted_by_what_ran_them(registry, metrics):
    for compiled in (True, True, False):
        metrics.engine.stepped(StepStats(0.1, 1, 0, 0.1, 0.0, compiled=compiled))
    paths = [value(registry, "steps_total", path=path) for path in ("compiled", "eager")]
    assert paths == [2, 1]


@pytest.mark.parametrize("state", get_args(GraphState))
def test_one_state_of_compiled_steps_is_shown_and_no_other(state, registry, metrics):
    metrics.engine.graphs_changed(GraphStatus("compiling"))
    metrics.engine.graphs_changed(GraphStatus(state, "why"))
    (family,) = [f for f in registry.collect() if f.name == "lockstep_model_decode_graphs"]
    assert {s.labels["state"] for s in family.samples if s.value} == {state}


def test_prompts_and_answers_are_measured_by_operation(registry, metrics):
    metrics.generations.admitted("score", [3, 5])
    metrics.generations.answered("beam_search", Finish("eos_token", decode_s=0.3), 4)
    assert value(registry, "prompt_tokens_total", operation="score") == 8
    assert value(registry, "request_prompt_tokens_bucket", operation="score", le="4.0") == 1
    assert value(registry, "request_prompt_tokens_count", operation="generate") == 0
    assert value(registry, "request_generated_tokens_sum", operation="beam_search") == 4
    per_token = "time_per_output_token_seconds_sum"
    assert value(registry, per_token, operation="beam_search") == pytest.approx(0.1)


def test_generated_tokens_that_were_added_are_counted_apart(registry, metrics):
    metrics.generations.set_base_size(100)
    metrics.generations.generated([7, 99, 100, 101])
    assert value(registry, "generated_tokens_total") == 4
    assert value(registry, "added_tokens_generated_total") == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.Overloaded("sequences", 4, retry_delay_s=1), "queue_full"),
        (errors.Overloaded("sessions", 4, retry_delay_s=1), "max_sessions"),
        (errors.Overloaded("session_rows", 4, retry_delay_s=1), "max_session_rows"),
        (errors.KVCacheExceeded(kv_tokens=2, limit_tokens=1), "kv_full"),
        (errors.Paused(), "paused"),
    ],
)
def test_a_refusal_is_counted_under_what_there_was_no_room_for(error, reason, registry, metrics):
    with pytest.raises(type(error)), metrics.generations.count_rejections():
        raise error
    (family,) = [f for f in registry.collect() if f.name == "lockstep_model_admission_rejections"]
    assert {s.labels["reason"]: s.value for s in family.samples if s.value} == {reason: 1}


def test_a_step_that_fails_is_not_timed(registry, metrics):
    with metrics.sessions.step("step_stream"):
        pass
    with pytest.raises(errors.SessionBusy), metrics.sessions.step("step_stream"):
        raise errors.SessionBusy("s")
    assert value(registry, "session_step_seconds_count", method="step_stream") == 1
