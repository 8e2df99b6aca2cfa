"""Failures as the engine names them, to errors."""

import secrets

import structlog

from model_service.protocol import Failure
from rpc import errors

log = structlog.stdlib.get_logger("model_service.front.engine_client.failure")


def service_error(failure: Failure) -> errors.ServiceError:
    """Builds the error that the engine named.

    A name or arguments that do not exist are a bug and become `InternalError`;
    the log has what they were.
    """
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, errors.ServiceError):
        try:
            return kind(**failure.arguments)
        except TypeError:
            pass
    request_id = f"engine-{secrets.token_hex(8)}"
    log.error(
        "engine_failure", request_id=request_id, error=failure.error, arguments=failure.arguments
    )
    return errors.InternalError(request_id)
