"""Calls that run sequences to their ends."""

from contextlib import AbstractAsyncContextManager
from functools import partial

from model_service.front.engine_client.call import Call
from model_service.front.engine_client.calls import EngineCalls
from model_service.protocol import ContinueSession, Generate, GenerateSession, SequenceSpec
from model_service.protocol.generation import GenerationConfig, ScoreSelection


class EngineGenerations:
    """Sequences run while a context is open; each gives the call, to be iterated for tokens.

    Entering one raises:
        Overloaded: there are no permits left.
        EngineLost: the engine is gone.
    """

    def __init__(self, calls: EngineCalls) -> None:
        """Runs sequences through the calls of an engine."""
        self._calls = calls

    def run(
        self,
        sequences: list[SequenceSpec],
        config: GenerationConfig,
        *,
        revision: int,
        selection: ScoreSelection | None = None,
        prompt_selection: ScoreSelection | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        num_rows: int | None = None,
        sequences_per_prompt: int = 1,
    ) -> AbstractAsyncContextManager[Call]:
        """Runs sequences.

        Args:
            sequences: the rows.
            config: how tokens are chosen.
            revision: vocabulary revision of the ids.
            selection: what to return about each generated token.
            prompt_selection: what to return about each prompt token.
            priority: lower goes first.
            cache_salt: prompts of equal salts may reuse each other's KV cache; None: nobody's.
            num_rows: rows of a step that the sequences take; None means one each.
            sequences_per_prompt: neighbors among the rows that have the same prompt.
        """
        command = partial(
            Generate,
            sequences=sequences,
            config=config,
            revision=revision,
            selection=selection,
            prompt_selection=prompt_selection,
            priority=priority,
            cache_salt=cache_salt,
            sequences_per_prompt=sequences_per_prompt,
        )
        return self._calls.stream(command, len(sequences), num_permits=num_rows)

    def run_session(
        self,
        session_id: str,
        sequences: list[SequenceSpec],
        config: GenerationConfig,
        *,
        revision: int,
        max_length: int,
        selection: ScoreSelection | None = None,
        prompt_selection: ScoreSelection | None = None,
        cache_salt: str | None = None,
    ) -> AbstractAsyncContextManager[Call]:
        """Runs sequences as rows of a new session. A call that is left early leaves none behind.

        Besides, the call fails with `Overloaded` when there is no room for the
        session now, and with `KVCacheExceeded` when there will never be.

        Args:
            session_id: the session's name.
            sequences: the rows.
            config: how tokens are chosen, also afterwards.
            revision: vocabulary revision of the ids.
            max_length: tokens of KV cache reserved per row.
            selection: what to return about each generated token.
            prompt_selection: what to return about each prompt token.
            cache_salt: as of `run`.
        """
        command = partial(
            GenerateSession,
            session_id=session_id,
            sequences=sequences,
            config=config,
            revision=revision,
            max_length=max_length,
            selection=selection,
            prompt_selection=prompt_selection,
            cache_salt=cache_salt,
        )
        return self._calls.stream(command, len(sequences))

    def continue_session(
        self,
        session_id: str,
        config: GenerationConfig,
        max_new_tokens: list[int],
        *,
        selection: ScoreSelection | None = None,
    ) -> AbstractAsyncContextManager[Call]:
        """Runs the rows of a session. A call that is left early is undone.

        Args:
            session_id: the session.
            config: how tokens are chosen in this call.
            max_new_tokens: most new tokens of each row.
            selection: what to return about each generated token.
        """
        command = partial(
            ContinueSession,
            session_id=session_id,
            config=config,
            max_new_tokens=max_new_tokens,
            selection=selection,
        )
        return self._calls.stream(command, len(max_new_tokens))
