import asyncio
import random
import threading
import time
from statistics import median

import pytest

from rpc import logging
from rpc.errors import Overloaded
from tokenizer_service.worker_pool import Cost, PoolLimits, WorkerPool


@pytest.fixture
def waits():
    return []


@pytest.fixture
async def pool(waits):
    made = WorkerPool(PoolLimits(threads=1, max_pending=2), observe_wait=waits.append)
    yield made
    made.close()


@pytest.fixture
def gate():
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


async def test_callers_that_come_back_when_they_are_told_find_room():
    pool = WorkerPool(PoolLimits(threads=1, max_pending=16), observe_wait=lambda _: None)
    ratios: list[float] = []
    over = asyncio.Event()

    async def call(name: str) -> None:
        """Calls until it is let in, as the Python client does."""
        logging._given_id.set(name)
        first_told_s, refused_at, pauses = None, 0.0, random.Random(name)
        while True:
            asked_at = time.monotonic()
            try:
                await pool.run(lambda: time.sleep(0.02))
            except Overloaded as refusal:
                if first_told_s is None:
                    first_told_s, refused_at = refusal.retry_delay_s, time.monotonic()
                await asyncio.sleep(max(0.1, refusal.retry_delay_s) * pauses.uniform(1, 1.2))
            else:
                if first_told_s is not None:
                    ratios.append(max(first_told_s, 0.1) / (asked_at - refused_at))
                return

    async def call_on(caller: int) -> None:
        number = 0
        while not over.is_set():
            await asyncio.create_task(call(f"{caller}.{(number := number + 1)}"))

    callers = [asyncio.create_task(call_on(caller)) for caller in range(96)]
    await until(lambda: len(ratios) >= 200)
    over.set()
    await asyncio.gather(*callers)
    pool.close()
    assert 0.5 < median(ratios[100:]) < 1.5


async def test_work_that_nobody_waits_for_still_counts_until_it_ends(pool, gate):
    running = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0.05)
    running[0].cancel()  # its thread is busy all the same
    await asyncio.gather(running[0], return_exceptions=True)
    assert pool._places.num_taken == 2
    gate.set()
    await running[1]
    await asyncio.sleep(0)
    assert pool._places.num_taken == 0


async def test_an_error_reaches_the_caller(pool):
    def fail():
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        await pool.run(fail)
    await asyncio.sleep(0)
    assert pool._places.num_taken == 0


LARGE = 2**20


class Work:
    """Pieces of work that say when they are done, one letter for each."""

    def __init__(self, done, name="a", pieces=3, gate=None):
        self.done = done
        self.name = name
        self.num_pieces = pieces
        self.gate = gate

    def pieces(self):
        for _ in range(self.num_pieces):
            self.done.append(self.name)
            if self.gate is not None:
                self.gate.wait()
            yield
        return self.name


def cost(working_bytes=1, request_bytes=LARGE):
    return Cost(request_bytes=request_bytes, working_bytes=working_bytes)


def begun(pool, work, its_cost):
    return asyncio.create_task(pool.run_pieces(work.pieces(), its_cost))


async def until(holds):
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  # what threads do sets no event of asyncio
            await asyncio.sleep(0.001)


async def test_the_result_of_work_in_pieces_is_what_it_returns(pool, waits):
    done = []
    assert await pool.run_pieces(Work(done).pieces(), cost()) == "a"
    assert done == ["a", "a", "a"]
    assert len(waits) == 1


async def test_small_work_does_not_wait_for_large_work(pool, gate):
    done = []
    large = begun(pool, Work(done, gate=gate), cost())
    await until(lambda: done)
    assert await pool.run(lambda: "small") == "small"
    small = Work([], "small in pieces")
    assert await pool.run_pieces(small.pieces(), cost(request_bytes=10)) == "small in pieces"
    gate.set()
    assert await large == "a"


async def test_large_calls_take_turns_piece_by_piece(pool, gate):
    done = []
    first = begun(pool, Work(done, "a", gate=gate), cost())
    await until(lambda: done)
    second = begun(pool, Work(done, "b", gate=gate), cost())
    await asyncio.sleep(0.01)  # queued behind the piece that runs
    gate.set()
    await asyncio.gather(first, second)
    assert "".join(done) == "ababab"


async def test_work_whose_caller_is_gone_stops_after_the_piece_that_runs(pool, gate):
    done = []
    large = begun(pool, Work(done, pieces=1000, gate=gate), cost())
    await until(lambda: done)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    assert pool._places.num_taken == 1, "its piece still runs"
    gate.set()
    await until(lambda: pool._places.num_taken == 0)
    assert done == ["a"]


async def test_work_begins_when_there_is_memory_for_it_in_order_of_arrival(gate):
    limits = PoolLimits(threads=4, max_pending=8, max_working_bytes=10)
    pool = WorkerPool(limits, observe_wait=lambda _: None)
    done = []
    calls = [
        begun(pool, Work(done, name, pieces=1, gate=gate), cost(working_bytes))
        for name, working_bytes in (("a", 6), ("b", 4), ("c", 5), ("d", 1))
    ]
    await until(lambda: len(done) == 2)
    await asyncio.sleep(0.01)
    assert sorted(done) == ["a", "b"], "d would fit and may not overtake c"
    gate.set()
    assert await asyncio.gather(*calls) == ["a", "b", "c", "d"]
    assert pool._working_bytes == 0
    pool.close()


async def test_work_that_needs_more_memory_than_there_is_runs_alone(gate):
    limits = PoolLimits(threads=4, max_pending=8, max_working_bytes=10)
    pool = WorkerPool(limits, observe_wait=lambda _: None)
    done = []
    calls = [begun(pool, Work(done, name, pieces=1, gate=gate), cost(99)) for name in ("a", "b")]
    await until(lambda: done)
    await asyncio.sleep(0.01)
    assert done == ["a"]
    gate.set()
    assert await asyncio.gather(*calls) == ["a", "b"]
    pool.close()


async def test_waiting_work_whose_caller_is_gone_is_never_begun(gate):
    limits = PoolLimits(threads=1, max_pending=8, max_working_bytes=10)
    pool = WorkerPool(limits, observe_wait=lambda _: None)
    done = []
    works = [Work(done, name, pieces=1, gate=gate) for name in "abc"]
    first, left, last = (begun(pool, work, cost(10)) for work in works)
    await until(lambda: done)
    left.cancel()
    gate.set()
    assert await first == "a"
    assert await last == "c"
    assert done == ["a", "c"]
    await until(lambda: pool._places.num_taken == 0)
    assert pool._working_bytes == 0
    pool.close()


async def test_more_waiting_requests_than_are_held_in_memory_are_refused(gate):
    limits = PoolLimits(threads=1, max_pending=8, max_working_bytes=10, max_waiting_bytes=2 * LARGE)
    pool = WorkerPool(limits, observe_wait=lambda _: None)
    calls = [begun(pool, Work([], gate=gate), cost(10)) for _ in range(3)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded) as caught:
        await pool.run_pieces(Work([]).pieces(), cost(10))
    assert caught.value.retry_delay_s is not None
    assert await pool.run(lambda: "small") == "small"
    gate.set()
    await asyncio.gather(*calls)
    pool.close()


async def test_work_that_fails_makes_room_for_the_next(gate):
    limits = PoolLimits(threads=1, max_pending=8, max_working_bytes=10)
    pool = WorkerPool(limits, observe_wait=lambda _: None)

    def fail():
        yield
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        await pool.run_pieces(fail(), cost(10))
    assert await pool.run_pieces(Work([]).pieces(), cost(10)) == "a"
    pool.close()
