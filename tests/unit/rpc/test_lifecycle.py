import asyncio

import pytest

from rpc import errors
from rpc.lifecycle import Lifecycle


@pytest.fixture
async def lifecycle():
    ready = Lifecycle(max_concurrent_calls=2)
    ready.set_ready(True)
    return ready


async def test_a_server_takes_no_calls_until_it_is_ready():
    with pytest.raises(errors.Loading):
        async with Lifecycle(max_concurrent_calls=1).admitted():
            pass


async def test_a_server_can_become_unready_again(lifecycle):
    lifecycle.set_ready(False)
    with pytest.raises(errors.Loading):
        async with lifecycle.admitted():
            pass


async def test_draining_is_for_good(lifecycle):
    lifecycle.drain()
    lifecycle.set_ready(True)
    with pytest.raises(errors.Draining):
        async with lifecycle.admitted():
            pass


async def test_a_full_server_says_how_many_calls_it_takes(lifecycle):
    async with lifecycle.admitted(), lifecycle.admitted():
        with pytest.raises(errors.Overloaded) as full:
            async with lifecycle.admitted():
                pass
    assert full.value.metadata == {"resource": "calls", "limit": "2"}
    assert full.value.retry_delay_s == 0.5


async def test_a_call_that_fails_gives_its_place_back(lifecycle):
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with lifecycle.admitted():
                raise ZeroDivisionError
    assert lifecycle.running == 0


async def test_waiting_for_idle_ends_with_the_last_call(lifecycle):
    async with lifecycle.admitted():
        idle = asyncio.create_task(lifecycle.wait_idle())
        async with lifecycle.admitted():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not idle.done()
    async with asyncio.timeout(1):
        await idle
