"""When to call again a service that did not answer."""

import asyncio
import random

FIRST_S = 0.1
MOST_S = 1.0


class Backoff:
    """Pauses that grow, and that replicas which lost the same service do not share.

    Whoever is in a hurry ends a pause, but never before the shortest one is over.
    """

    def __init__(self) -> None:
        """Begins with the shortest pause."""
        self._pause_s = FIRST_S

    def reset(self) -> None:
        """Begins anew: the service has answered."""
        self._pause_s = FIRST_S

    async def pause(self, hurry: asyncio.Event) -> None:
        """Waits for the next attempt.

        Args:
            hurry: set while somebody waits for what the service has.
        """
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, MOST_S)
        least_s = min(pause_s, FIRST_S)
        await asyncio.sleep(least_s)
        try:
            async with asyncio.timeout(pause_s - least_s):
                await hurry.wait()
        except TimeoutError:
            pass
