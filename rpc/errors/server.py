"""Failures of a server that cannot take or finish a call."""

from rpc.errors.service_error import ServiceError


class Overloaded(ServiceError):
    """The server is running and queueing as much as it admits."""

    def __init__(self, resource: str, limit: int, *, retry_delay_s: float) -> None:
        super().__init__(
            f"{limit} {resource.replace('_', ' ')} are in use, the most this server admits.",
            retry_delay_s=retry_delay_s,
            resource=resource,
            limit=limit,
        )


class Loading(ServiceError):
    """The server is loading its model or tokenizer."""

    def __init__(self) -> None:
        super().__init__("The server is loading.", retry_delay_s=1.0)


class Draining(ServiceError):
    """The server is shutting down and takes no new work."""

    def __init__(self, message: str = "The server is shutting down.") -> None:
        super().__init__(message, retry_delay_s=1.0)


class Paused(Draining):
    """An operator has paused the server; it takes new work again when it is resumed."""

    def __init__(self) -> None:
        super().__init__("An operator has paused the server; it takes no new work until resumed.")


class InternalError(ServiceError):
    """A bug. The text of the failure is in the server's log under the id."""

    def __init__(self, request_id: str) -> None:
        super().__init__("Internal error; see the server's log.", requestId=request_id)
