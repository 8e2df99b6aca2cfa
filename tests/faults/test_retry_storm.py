"""A service that refuses everything for a while, and the clients that we ship (R23)."""

import threading
import time

import pytest
from lockstep.v1 import model_admin_service_pb2

from lockstep_client import Lockstep
from lockstep_client.exceptions import LockstepError
from tests.correctness.sizes import sizes
from tests.integration.model_process import ModelProcess, counting_process

NUM_CALLERS = 16
THINK_S = 0.05


def attempts_per_s(service: ModelProcess, seconds: float) -> float:
    """Counts the attempts that reach the service, for so long."""
    before = service.service.handled("GenerateStream")
    start = time.monotonic()
    time.sleep(seconds)
    return (service.service.handled("GenerateStream") - before) / (time.monotonic() - start)


@pytest.fixture
def service(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path) as running:
        yield running


@sizes("seconds", ci=4.0, full=30.0)
def test_callers_of_a_service_that_refuses_all_do_not_add_to_its_load(service, seconds):
    over, ended = threading.Event(), {"good": 0, "refused": 0}

    def call() -> None:
        with Lockstep(tokenizer="127.0.0.1:1", model=service.service.address) as ls:
            while not over.is_set():
                try:
                    ls.model.generate([[5]], max_new_tokens=3)
                except LockstepError:
                    ended["refused"] += 1
                else:
                    ended["good"] += 1
                time.sleep(THINK_S)

    callers = [threading.Thread(target=call) for _ in range(NUM_CALLERS)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    usual = attempts_per_s(service, seconds / 2)
    service.admin.Drain(model_admin_service_pb2.DrainRequest())
    first = attempts_per_s(service, seconds / 3)
    later = attempts_per_s(service, seconds * 2 / 3)
    service.admin.Resume(model_admin_service_pb2.ResumeRequest())
    after = attempts_per_s(service, seconds / 3)
    over.set()
    for caller in callers:
        caller.join()
    print(f"\nattempts/s: usual {usual:.0f}, refused {first:.0f}, {later:.0f}, after {after:.0f}")
    assert ended["refused"] > 0
    assert later <= 1.2 * usual
    assert after <= 1.5 * usual
