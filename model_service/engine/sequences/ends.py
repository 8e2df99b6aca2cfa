"""Tokens that end a sequence, whatever its length: its ends, and what the caller stops at."""

from model_service.engine.sampling.choosing import Choosing
from model_service.engine.sequences import stop_strings
from model_service.protocol.generation import FinishReason


def finish_reason(choosing: Choosing, token_ids: list[int], token_id: int) -> FinishReason | None:
    """Says why a sequence would end with a token, or None.

    Args:
        choosing: how its tokens are chosen.
        token_ids: its tokens so far.
        token_id: the next one.
    """
    config = choosing.config
    if token_id in config.eos_token_ids:
        return "eos_token"
    if token_id in config.stop_token_ids:
        return "stop_token"
    if config.stop_strings and completed(choosing, token_ids, token_id) is not None:
        return "stop_string"
    generated = len(token_ids) - len(choosing.prompt)
    for stop in config.stop_sequences:
        before = len(stop) - 1
        if token_id != stop[-1] or generated < before:
            continue
        if tuple(token_ids[len(token_ids) - before :]) == stop[:-1]:
            return "stop_sequence"
    return None


def completed(choosing: Choosing, token_ids: list[int], token_id: int) -> str | None:
    """Returns the stop string that a token completes, or None. Arguments as `finish_reason`."""
    return stop_strings.completed(
        choosing.config.stop_strings,
        token_id,
        (token_ids[i] for i in range(len(token_ids) - 1, len(choosing.prompt) - 1, -1)),
        choosing.revision.token_bytes,
    )
