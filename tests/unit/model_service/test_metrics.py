"""What the front counts."""

from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

from model_service.generation import FinishReason
from model_service.messages import Finish
from model_service.metrics import ModelMetrics


@pytest.mark.parametrize("reason", get_args(FinishReason))
def test_every_way_in_which_a_sequence_can_end_is_counted(reason):
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry, "tiny")
    metrics.sequence_finished(Finish(reason))
    (family,) = [f for f in registry.collect() if f.name == "lockstep_model_requests_finished"]
    assert sum(s.value for s in family.samples if s.name.endswith("_total")) == 1
