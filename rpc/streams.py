"""Streams of requests: reading one that may fall silent, also while the server shuts down."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from rpc.errors import Draining

Request = TypeVar("Request")

# While draining, a caller that sends nothing for this long is not waited for.
DRAIN_SILENCE_S = 2.0


async def until_drained(
    requests: AsyncIterator[Request],
    draining: asyncio.Event,
    *,
    silence_s: float = DRAIN_SILENCE_S,
) -> AsyncGenerator[Request]:
    """Yields requests as they come, until a caller is silent while the server drains.

    A stream in use goes on, as any running call does. A stream on which no request
    comes would otherwise delay the shutdown until it is cut.

    Args:
        requests: the stream of a call.
        draining: set when the server shuts down.
        silence_s: how long the next request is waited for then.

    Raises:
        Draining: the server shuts down and nothing comes.
    """
    incoming = aiter(requests)
    drained = asyncio.ensure_future(draining.wait())
    following = asyncio.ensure_future(_next(incoming))
    try:
        while True:
            await asyncio.wait([following, drained], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                await asyncio.wait([following], timeout=silence_s)
            if not following.done():
                raise Draining
            request = following.result()
            if request is None:
                return
            yield request
            following = asyncio.ensure_future(_next(incoming))
    finally:
        drained.cancel()
        following.cancel()


async def _next(requests: AsyncIterator[Request]) -> Request | None:
    """Returns the next request, or None after the last: a task cannot end with its exception."""
    return await anext(requests, None)
