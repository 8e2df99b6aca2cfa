"""Ends a row for which something fails that no check knows, and says so.

Rows share their steps, so one that fails must not take the others along: a bug,
a processor of the operator's, or memory that is not enough for what it asked.
"""

import logging
import secrets

import torch

from model_service.protocol import Failure

logger = logging.getLogger(__name__)


def of_processors(error: Exception, *, row: int, position: int) -> Failure:
    """Returns what a row's caller is told when processors raised an exception.

    Args:
        error: what was raised, because of `error.__cause__`.
        row: index of the row in its call.
        position: index of the token that was to be chosen or described.
    """
    if isinstance(error.__cause__, OverflowError):  # a factor, raised to the number of tokens
        return Failure("NonFiniteScores", {"row": row, "position": position})
    return internal(error)


def of_step(error: Exception) -> Failure:
    """Returns what a row's caller is told when the model raised an exception for it alone."""
    if not is_shortage(error):
        return internal(error)
    logger.warning("Memory is not sufficient for a row: %s", error)
    return Failure("MemoryExhausted")


def is_shortage(error: Exception) -> bool:
    """Whether memory was not sufficient."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)  # what torch's allocator for the CPU says


def internal(error: Exception) -> Failure:
    """Logs a failure, and returns what the row's caller is told: where in the log it is."""
    request_id = f"engine-{secrets.token_hex(8)}"
    logger.error("A row failed (request id %s)", request_id, exc_info=error)
    return Failure("InternalError", {"request_id": request_id})
