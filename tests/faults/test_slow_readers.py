"""Callers that ask for much and read nothing (R5)."""

import time
from urllib.request import urlopen

import pytest
from lockstep.v1 import model_service_pb2
from prometheus_client.parser import text_string_to_metric_families

from tests.checkpoint_factory import make_checkpoint
from tests.correctness.sizes import sizes
from tests.faults.raw_http2 import RawCall
from tests.faults.watch import canaries, check_canaries, leaving_nothing, memory
from tests.integration.model_process import ragged
from tests.services import running_services

PATH = "/lockstep.v1.ModelService/GenerateStream"
STALL_S = 3.0
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow_readers")
    flags = ("--stream-stall-timeout-s", str(STALL_S), "--stream-buffer-bytes", str(MEBIBYTE))
    with running_services(make_checkpoint(folder / "tiny"), folder, model_flags=flags) as running:
        yield running


def ended_as_slow(service) -> float:
    """Returns how many calls have ended as `SLOW_CONSUMER`."""
    with urlopen(service.metrics_url, timeout=30) as page:
        text = page.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "lockstep_calls_failed_total"
        and sample.labels["reason"] == "SLOW_CONSUMER"
    )


@pytest.mark.parametrize("window", [0, 1])
@sizes("num_readers", ci=16, full=64)
def test_callers_that_read_nothing_are_ended_and_hold_up_nobody(services, num_readers, window):
    request = model_service_pb2.GenerateStreamRequest(
        request=model_service_pb2.GenerateRequest(
            prompt=ragged([5, 6, 7]),
            generation_config={"max_new_tokens": 240, "eos_token_ids": {}},
            scores={"logits": True, "full": True},
        )
    ).SerializeToString()
    before = ended_as_slow(services.model)
    with leaving_nothing(services.model), canaries(services) as outcome:
        resident = memory(services.model)
        calls = [
            RawCall(services.model.address, PATH, request, window=window)
            for _ in range(num_readers)
        ]
        deadline = time.monotonic() + 60
        while ended_as_slow(services.model) < before + num_readers:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        grown = (memory(services.model) - resident) / MEBIBYTE
        for call in calls:
            call.close()
    check_canaries(outcome)
    waits = sorted(outcome["waits_s"]["model"])
    print(f"\nanother's call p99 {waits[len(waits) * 99 // 100]:.3f} s, grown {grown:.1f} MiB")
