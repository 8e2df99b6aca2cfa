"""What the front counts."""

from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

from model_service.generation import FinishReason
from model_service.messages import Finish, StepStats
from model_service.metrics import ModelMetrics


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
