"""What becomes of a row for which something fails that no check knows: it ends, and says so.

Rows share their steps, so one that fails must not take the others along: a bug,
a processor of the operator's, or memory that is not enough for what it asked.
"""

import logging
import secrets

from model_service.messages import Failure

logger = logging.getLogger(__name__)


def internal(error: Exception) -> Failure:
    """Logs a failure, and returns what the row's caller is told: where in the log it is."""
    request_id = f"engine-{secrets.token_hex(8)}"
    logger.error("A row failed (request id %s)", request_id, exc_info=error)
    return Failure("InternalError", {"request_id": request_id})
