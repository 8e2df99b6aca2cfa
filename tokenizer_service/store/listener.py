"""Notices when another replica writes a revision."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg

from tokenizer_service.store.records import StoreError


class Listener:
    """One session that listens. Used by one task; anything it misses, a later look finds."""

    def __init__(
        self, parameters: Callable[[], dict[str, Any]], channel: str, interval_s: float
    ) -> None:
        """Prepares to listen; connects when it is first waited for.

        Args:
            parameters: returns how to connect.
            channel: what is listened to.
            interval_s: longest time that `wait` takes.
        """
        self._parameters = parameters
        self._channel = channel
        self._interval_s = interval_s
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def wait(self) -> None:
        """Returns when it is time to look: at an announcement, or after the interval."""
        try:
            if self._connection is None:
                # Nothing was heard until now, so there may be something already.
                self._connection = await self._listen()
            else:
                heard = self._connection.notifies(timeout=self._interval_s, stop_after=1)
                async for _ in heard:
                    pass
        except (psycopg.Error, StoreError):
            await self.close()
            await asyncio.sleep(self._interval_s)

    async def close(self) -> None:
        """Ends the session, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _listen(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(autocommit=True, **self._parameters())
        await connection.execute(f"LISTEN {self._channel}")
        return connection
