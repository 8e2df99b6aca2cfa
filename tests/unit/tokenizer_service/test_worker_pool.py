import asyncio
import threading

import pytest

from rpc.errors import Overloaded
from tokenizer_service.worker_pool import WorkerPool


@pytest.fixture
def waits():
    return []


@pytest.fixture
async def pool(waits):
    made = WorkerPool(threads=1, max_pending=2, observe_wait=waits.append)
    yield made
    made.close()


@pytest.fixture
def gate(pool):
    """Work waits for it. Opened in the end, or threads of a failed test would stay."""
    event = threading.Event()
    yield event
    event.set()


async def test_work_runs_in_another_thread_and_its_wait_is_observed(pool, waits):
    assert await pool.run(threading.get_ident) != threading.get_ident()
    assert len(waits) == 1


async def test_more_work_than_the_limit_is_refused_at_once(pool, gate):
    running = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await pool.run(lambda: None)
    assert caught.value.retry_delay_s is not None
    gate.set()
    await asyncio.gather(*running)
    assert await pool.run(lambda: "room again") == "room again"


async def test_work_that_nobody_waits_for_still_counts_until_it_ends(pool, gate):
    running = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0.05)
    running[0].cancel()  # its thread is busy all the same
    await asyncio.gather(running[0], return_exceptions=True)
    assert pool._num_pending == 2
    gate.set()
    await running[1]
    await asyncio.sleep(0)
    assert pool._num_pending == 0


async def test_an_error_reaches_the_caller(pool):
    def fail():
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        await pool.run(fail)
    await asyncio.sleep(0)
    assert pool._num_pending == 0
