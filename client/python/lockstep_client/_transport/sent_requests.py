"""The requests of a call with streams both ways, which may have to be sent again."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from lockstep_client._transport.retries import is_idempotent

Queue = TypeVar("Queue")


class SentRequests(Generic[Queue]):
    """Requests on their way. Until the call answers, those so far are kept for another attempt."""

    def __init__(self, new_queue: Callable[[], Queue]) -> None:
        """Begins empty.

        Args:
            new_queue: makes what gRPC takes the requests of an attempt from.
        """
        self._new_queue = new_queue
        self._queue: Any = new_queue()
        self._kept: list[Any] | None = []

    @property
    def are_repeatable(self) -> bool:
        """Whether sending them again changes nothing."""
        return all(request is None or is_idempotent(request) for request in self._kept or ())

    def put_nowait(self, request: Any) -> None:
        """Sends a request; None says that it was the last."""
        if self._kept is not None:
            self._kept.append(request)
        self._queue.put_nowait(request)

    def again(self) -> Queue:
        """Returns all requests so far, and those to come, for an attempt; ends the one before."""
        before, self._queue = self._queue, self._new_queue()
        for request in self._kept or ():
            self._queue.put_nowait(request)
        before.put_nowait(None)  # lets go who waits for requests
        queue: Queue = self._queue
        return queue

    def forget(self) -> None:
        """Takes that the call has begun to answer: there is no other attempt."""
        self._kept = None
