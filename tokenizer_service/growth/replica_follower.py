"""Brings what other replicas write to the vocabulary that serves here."""

import asyncio
from contextlib import suppress

import structlog

from rpc.errors import StoreUnavailable
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.store.listener import Listener
from vocabulary import BrokenChainError

_log = structlog.stdlib.get_logger(__name__)


class ReplicaFollower:
    """A task that runs for as long as the service does."""

    def __init__(self, vocabulary: LiveVocabulary, listener: Listener) -> None:
        self._vocabulary = vocabulary
        self._listener = listener
        self._broken = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stops following."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._listener.close()

    async def _run(self) -> None:
        while True:
            await self._listener.wait()
            try:
                await self._vocabulary.catch_up()
                self._broken = False
            except StoreUnavailable:
                pass  # what is served goes on; the store says so in the log
            except BrokenChainError as error:
                if not self._broken:
                    self._broken = True
                    _log.error("chain_broken", revision=error.revision, reason=str(error))
