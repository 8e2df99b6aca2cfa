"""Streams of requests while the server shuts down."""

import asyncio
from contextlib import aclosing

import pytest

from rpc.errors import Draining
from rpc.streams import until_drained


async def from_queue(queue: asyncio.Queue):
    while (item := await queue.get()) is not None:
        yield item


async def test_every_request_comes_and_the_end_ends_it():
    queue: asyncio.Queue = asyncio.Queue()
    for item in ("a", "b", None):
        queue.put_nowait(item)
    assert [r async for r in until_drained(from_queue(queue), asyncio.Event())] == ["a", "b"]


async def test_a_silent_caller_is_waited_for_unless_the_server_drains():
    queue, draining = asyncio.Queue(), asyncio.Event()
    async with aclosing(until_drained(from_queue(queue), draining, silence_s=0.05)) as requests:
        following = asyncio.ensure_future(anext(requests))
        await asyncio.sleep(0.1)
        assert not following.done()
        draining.set()
        with pytest.raises(Draining):
            await following


async def test_a_caller_that_goes_on_is_served_while_the_server_drains():
    queue, draining = asyncio.Queue(), asyncio.Event()
    draining.set()
    async with aclosing(until_drained(from_queue(queue), draining, silence_s=0.1)) as requests:
        for item in range(4):
            asyncio.get_running_loop().call_later(0.05, queue.put_nowait, item)
            assert await anext(requests) == item
        with pytest.raises(Draining):
            await anext(requests)


async def test_an_error_of_the_stream_is_raised():
    async def broken():
        yield 1
        raise ValueError("broken")

    requests = until_drained(broken(), asyncio.Event())
    assert await anext(requests) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(requests)
