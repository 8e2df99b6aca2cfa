"""What the tokenizer service counts."""

import pytest
from prometheus_client import CollectorRegistry

from tokenizer_service.metrics import TokenizerMetrics


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return TokenizerMetrics(registry, "tiny", base_size=100)


def test_every_operation_has_its_series_before_its_first_call(registry, metrics):
    for operation in ("encode", "decode", "chat"):
        labels = {"tokenizer": "tiny", "operation": operation}
        for name in ("tokens_total", "characters_total", "operation_seconds_count"):
            assert registry.get_sample_value(f"lockstep_tokenizer_{name}", labels) == 0


def test_encoded_tokens_that_were_added_are_counted(registry, metrics):
    metrics.encoded([[5, 99], [], [100, 7, 101]])
    name = "lockstep_tokenizer_added_tokens_encoded_total"
    assert registry.get_sample_value(name, {"tokenizer": "tiny"}) == 2
