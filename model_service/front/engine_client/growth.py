"""Calls that grow the vocabulary."""

from collections.abc import Sequence
from functools import partial

from model_service.front.engine_client.calls import EngineCalls
from model_service.protocol import GrowVocabulary, NewRow, SpellTokens, VocabularyGrown


class EngineGrowth:
    """The vocabulary of the engine, as it grows."""

    def __init__(self, calls: EngineCalls) -> None:
        """Sends commands through the calls of an engine."""
        self._calls = calls

    def spell(self, token_bytes: Sequence[bytes]) -> None:
        """Says which bytes the ids of revision 0 stand for, for all calls to come."""
        self._calls.tell(lambda _: SpellTokens(list(token_bytes)))

    async def grow(self, revision: int, rows: Sequence[NewRow]) -> VocabularyGrown:
        """Appends a revision. Takes effect between two steps.

        Args:
            revision: number of the new revision.
            rows: its new ids, in order.

        Raises:
            EngineLost: the engine is gone.
            ServiceError: the engine refused it.
        """
        command = partial(GrowVocabulary, revision=revision, rows=list(rows))
        return await self._calls.ask(VocabularyGrown, command)
