"""Everything at once, for long: nothing grows and nothing changes (R17)."""

import random
import threading
import time
from collections.abc import Sequence

import pytest

from tests.checkpoint_factory import make_checkpoint
from tests.faults.oracle import Oracle
from tests.faults.test_contamination import NUM_CALLERS, Callers
from tests.faults.test_disconnects import KINDS, leaver
from tests.faults.watch import canaries, check_canaries, leaving_nothing, memory
from tests.services import running_services

PER_SECOND = 10.0
WARM_UP_SHARE = 0.2
MEBIBYTE = 2**20


def upper_slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Returns the upper end of the 95 % interval of the Theil-Sen slope."""
    count = len(times)
    slopes = sorted(
        (values[j] - values[i]) / (times[j] - times[i])
        for i in range(count)
        for j in range(i + 1, count)
    )
    deviation = (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
    return slopes[min(len(slopes) - 1, round((len(slopes) + 1.96 * deviation) / 2))]


def test_a_slope_is_found_in_noise():
    rng = random.Random(0)
    times = [float(t) for t in range(200)]
    values = [3 * t + rng.gauss(0, 50) for t in times]
    assert 3.0 < upper_slope(times, values) < 3.3


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    flags = ("--stream-stall-timeout-s", "2", "--max-kv-tokens", "6000")
    with running_services(make_checkpoint(folder / "tiny"), folder, model_flags=flags) as running:
        yield running


@pytest.mark.parametrize(
    "seconds", [20.0, pytest.param(3600.0, marks=[pytest.mark.full, pytest.mark.timeout(7200)])]
)
def test_nothing_grows_and_nothing_changes(services, seconds):
    oracle, rng = Oracle(services.checkpoint), random.Random(0)
    times: list[float] = []
    resident: list[float] = []
    with services.client() as ls, leaver(services) as leaves:
        callers, over = Callers(ls, oracle), threading.Event()

        def work(seed: int) -> None:
            number = random.Random(seed)
            while not over.wait(NUM_CALLERS / PER_SECOND):
                callers.call(number.randrange(10**9))

        def leave() -> None:
            while not over.wait(0.5):
                leaves.leave(rng.choice(KINDS), rng.randrange(10**6))

        def grow() -> None:
            while not over.wait(10.0):
                ls.vocabulary.add_tokens([f"<token {time.time_ns()}>"])

        with leaving_nothing(services.model), canaries(services) as outcome:
            threads = [threading.Thread(target=work, args=(n,)) for n in range(NUM_CALLERS)]
            threads += [threading.Thread(target=leave), threading.Thread(target=grow)]
            for thread in threads:
                thread.start()
            start = time.monotonic()
            while (now := time.monotonic() - start) < seconds:
                time.sleep(max(seconds / 360, 1.0))
                times.append(now)
                resident.append(float(memory(services.model)))
            over.set()
            for thread in threads:
                thread.join()
    warm = round(len(times) * WARM_UP_SHARE)
    slope = upper_slope(times[warm:], resident[warm:]) * 600 / MEBIBYTE
    print(f"\n{dict(callers.made)}, {outcome['runs']} canaries, at most {slope:.2f} MiB in 10 min")
    assert callers.wrong == []
    check_canaries(outcome)
    if seconds >= 3600:
        assert slope < 1
