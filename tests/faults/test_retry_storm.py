"""A service that refuses everything for a while, and the clients that we ship (R23)."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lockstep.v1 import model_admin_service_pb2

from lockstep_client import Lockstep
from lockstep_client.exceptions import LockstepError
from tests.correctness.sizes import sizes
from tests.integration.model_process import ModelProcess, counting_process

NUM_CALLERS = 16
THINK_S = 0.05
PACE_S = 0.2
"""A caller that keeps to a pace begins a call as often, whatever has become of those before."""


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


class Callers:
    """Clients of our own, one for each caller."""

    def __init__(self, address: str, *, keeping_pace: bool) -> None:
        self._address = address
        self._keeping_pace = keeping_pace
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._call_on) for _ in range(NUM_CALLERS)]
        self.ended = {"good": 0, "refused": 0}

    def __enter__(self) -> "Callers":
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join()

    def _call_on(self) -> None:
        with (
            Lockstep(tokenizer="127.0.0.1:1", model=self._address) as ls,
            ThreadPoolExecutor(max_workers=32) as calls,
        ):
            while not self._over.wait(PACE_S if self._keeping_pace else THINK_S):
                call = calls.submit(self._call, ls)
                if not self._keeping_pace:
                    call.result()

    def _call(self, ls: Lockstep) -> None:
        try:
            ls.model.generate([[5]], max_new_tokens=3)
        except LockstepError:
            self.ended["refused"] += 1
        else:
            self.ended["good"] += 1


@pytest.mark.parametrize("keeping_pace", [False, True], ids=["waiting", "keeping a pace"])
@sizes("seconds", ci=8.0, full=30.0)
def test_callers_of_a_service_that_refuses_all_do_not_add_to_its_load(
    service, seconds, keeping_pace
):
    with Callers(service.service.address, keeping_pace=keeping_pace) as callers:
        time.sleep(1)
        usual = attempts_per_s(service, seconds / 2)
        service.admin.Drain(model_admin_service_pb2.DrainRequest())
        first = attempts_per_s(service, seconds / 2)  # ten seconds of the full size
        later = attempts_per_s(service, seconds / 2)
        service.admin.Resume(model_admin_service_pb2.ResumeRequest())
        after = attempts_per_s(service, seconds / 3)
    print(f"\nattempts/s: usual {usual:.0f}, refused {first:.0f}, {later:.0f}, after {after:.0f}")
    assert callers.ended["refused"] > 0
    assert later <= 1.2 * usual
    assert after <= 1.5 * usual
