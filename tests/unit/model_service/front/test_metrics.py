"""What the front counts."""

from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

from model_service.front.metrics import ModelMetrics
from model_service.protocol import Finish, GraphState, GraphStatus, StepStats
from model_service.protocol.generation import FinishReason


@pytest.mark.parametrize("reason", get_args(FinishReason))
def test_every_way_in_which_a_sequence_can_end_is_counted(reason):
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry, "tiny")
    metrics.sequence_finished(Finish(reason))
    (family,) = [f for f in registry.collect() if f.name == "lockstep_model_requests_finished"]
    assert sum(s.value for s in family.samples if s.name.endswith("_total")) == 1


def test_a_step_is_counted_once_with_all_its_tokens():
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry, "tiny")
    metrics.stepped(StepStats(0.1, 2, 30, 0.08, 0.01, drafted=5, accepted=3))
    labels = {"model_name": "tiny"}
    values = {
        name: registry.get_sample_value(f"lockstep_model_{name}", labels)
        for name in (
            "batch_tokens_count",
            "batch_tokens_sum",
            "batch_sequences_sum",
            "drafts_total",
            "accepted_drafts_total",
        )
    }
    assert list(values.values()) == [1, 37, 2, 5, 3]


def test_steps_are_counted_by_what_ran_them():
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry, "tiny")
    for compiled in (True, True, False):
        metrics.stepped(StepStats(0.1, 1, 0, 0.1, 0.0, compiled=compiled))

    def steps(path: str) -> float | None:
        labels = {"model_name": "tiny", "path": path}
        return registry.get_sample_value("lockstep_model_steps_total", labels)

    assert (steps("compiled"), steps("eager")) == (2, 1)


@pytest.mark.parametrize("state", get_args(GraphState))
def test_one_state_of_compiled_steps_is_shown_and_no_other(state):
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry, "tiny")
    metrics.graphs_changed(GraphStatus("compiling"))
    metrics.graphs_changed(GraphStatus(state, "why"))
    (family,) = [f for f in registry.collect() if f.name == "lockstep_model_decode_graphs"]
    assert {s.labels["state"] for s in family.samples if s.value} == {state}
