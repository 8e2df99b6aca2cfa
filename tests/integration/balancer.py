"""A TCP balancer: gives connections in turn to those of its targets that take them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

CHUNK_BYTES = 2**16


class Balancer:
    """Passes connections on.

    Attributes:
        address: where it listens.
        num_connections: accepted so far.
        num_open: those of them that are open.
    """

    def __init__(self, targets: list[str]) -> None:
        self._targets = targets
        self._turn = count()
        self.num_open = 0
        self._loop = asyncio.new_event_loop()
        self.num_connections = 0
        self._server = self._loop.run_until_complete(asyncio.start_server(self._take, "127.0.0.1"))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self.num_open += 1
        first = next(self._turn) % len(self._targets)
        for target in (*self._targets[first:], *self._targets[:first]):
            host, _, port = target.rpartition(":")
            with suppress(OSError):
                back, forth = await asyncio.open_connection(host, int(port))
                await asyncio.gather(_pass(reader, forth), _pass(back, writer))
                break
        writer.close()
        self.num_open -= 1

    def retarget(self, *targets: str) -> None:
        """Gives new connections to other targets. Those that there are go on."""
        self._targets = list(targets)

    def close(self) -> None:
        """Stops listening. Connections go on until their ends leave."""
        self._loop.call_soon_threadsafe(self._server.close)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def balancer(*targets: str) -> Iterator[Balancer]:
    """Runs a balancer before some `host:port`."""
    running = Balancer(list(targets))
    try:
        yield running
    finally:
        running.close()
