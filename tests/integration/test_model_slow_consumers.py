"""Streams of a model service whose callers do not read them."""

import re
import time

from lockstep.v1 import model_service_pb2

from tests.integration.model_calls import ENDLESS, metrics, refused, stream
from tests.integration.model_process import counting_process, ragged


def running_rows(service) -> float:
    """Rows that the engine is working on, by the service's own gauge."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics(service).splitlines()
        if line.startswith("lockstep_model_requests_running{")
    )


def wait_until_rows_were_freed(service) -> None:
    """Waits until the gauge, which follows the engine, has shown rows and shows none."""
    deadline = time.monotonic() + 30
    for shown in (True, False):
        while (running_rows(service) > 0) is not shown:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def assert_slow_consumer_recorded(service):
    """Waits for what the log and the metrics say of the only stream that failed."""
    deadline = time.monotonic() + 10
    while not (failed := [line for line in service.events("call") if line["code"] != "OK"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (line,) = failed
    assert (line["code"], line["reason"]) == ("RESOURCE_EXHAUSTED", "SLOW_CONSUMER")
    text = metrics(service)
    assert 'lockstep_calls_failed_total{reason="SLOW_CONSUMER"} 1.0' in text
    (handled,) = re.findall(r'handled_total{grpc_code="RES.*,grpc_method="GenerateS.* (.*)', text)
    assert handled == "1.0"
    sequences = r'requests_finished_total{.*finish_reason="error",.*operation="generate".* (.*)'
    assert re.findall(sequences, text) == ["64.0"]


def test_a_client_that_does_not_read_is_cut_off_and_its_rows_are_freed(tiny_checkpoint, tmp_path):
    flags = ("--stream-stall-timeout-s", "1", "--stream-buffer-bytes", str(2**20))
    with counting_process(tiny_checkpoint, tmp_path, *flags) as service:
        request = model_service_pb2.GenerateRequest(
            prompt=ragged(*[[5]] * 64),
            generation_config=ENDLESS,
            scores={"logits": True, "scores": True, "full": True},
        )
        events = service.model.GenerateStream(
            model_service_pb2.GenerateStreamRequest(request=request), timeout=60
        )
        next(events)
        next(events)  # the first tokens; then nothing is read and flow control stops the writes
        wait_until_rows_were_freed(service)
        list(stream(service, {"max_new_tokens": 1}))  # others go on
        assert refused(list, events).reason == "SLOW_CONSUMER"
        assert_slow_consumer_recorded(service)


def test_a_client_that_leaves_without_ever_reading_was_a_slow_consumer(tiny_checkpoint, tmp_path):
    flags = ("--stream-buffer-bytes", str(2**20))  # less than its rows come to
    with counting_process(tiny_checkpoint, tmp_path, *flags) as service:
        request = model_service_pb2.GenerateRequest(
            prompt=ragged(*[[5]] * 64),
            generation_config=ENDLESS,
            scores={"logits": True, "scores": True, "full": True},
        )
        events = service.model.GenerateStream(
            model_service_pb2.GenerateStreamRequest(request=request), timeout=60
        )
        next(events)
        next(events)
        wait_until_rows_were_freed(service)
        events.cancel()
        assert_slow_consumer_recorded(service)
