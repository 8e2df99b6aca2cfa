# Generated from _async/row_calls.py by `make client`.
"""Calls with any number of rows, made as requests that the service takes, blocking."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from lockstep_client._calls import progress as bars
from lockstep_client._calls import row_results
from lockstep_client._calls.row_requests import (
    Request,
    RowLimits,
    RowRequest,
    locate,
    may_pass_in_halves,
)
from lockstep_client._calls.row_results import Part
from lockstep_client._requests.options import ManyOptions
from lockstep_client._transport.endpoint import Timeout, UseDefault, check_timeout
from lockstep_client._transport.sync_workers import run_each
from lockstep_client.exceptions import LockstepError

Result = TypeVar("Result")
Limit = TypeVar("Limit", bound=Timeout)


def call_rows(
    name: str,
    request: Request,
    call: Callable[[Request, Timeout], Result],
    limits: Callable[[Timeout], RowLimits],
    timeout: Timeout,
    options: ManyOptions,
    row_numbers: Sequence[int] | None = None,
) -> list[Part[Result]]:
    """Makes a call, in parts where it has more rows or bytes than one request may have.

    Args:
        name: what is done with the rows, for the bar.
        request: with all rows.
        call: sends a request with some of them.
        limits: asks for the limits of the service, within a time.
        timeout: of the whole call; the client's own holds for each request.
        options: see `ManyOptions`.
        row_numbers: how the caller numbers the rows, where that is not their order.

    Returns:
        The results, in the order of the rows.

    Raises:
        LockstepError: a row failed, and errors are not to be returned.
    """
    returns = row_results.returns(options.get("errors"))
    rows = RowRequest(request)
    left = time_left(timeout)
    bounds = limits(left()) if len(rows) > 1 else None
    parts = rows.parts(bounds) if bounds else [range(len(rows))]
    numbers = range(len(rows)) if row_numbers is None else row_numbers

    advance: Callable[[int], None]

    def run(part: range) -> list[Part[Result]]:
        try:
            result = call(rows.cut(part), left())
        except LockstepError as error:
            if len(part) > 1 and may_pass_in_halves(error, returns=returns):
                middle = len(part) // 2
                return [*run(part[:middle]), *run(part[middle:])]
            locate(error, numbers[part.start : part.stop])
            if not returns:
                raise
            advance(len(part))
            return [Part(part, error=error)]
        advance(len(part))
        return [Part(part, result)]

    with bars.shown(name, len(rows), progress=options.get("progress")) as advance:
        num_workers = options.get("concurrency") or (bounds.num_requests if bounds else 1)
        done = run_each(run, parts, num_workers)
    return [part for several in done for part in several]


def time_left(timeout: Limit) -> Callable[[], Limit | float]:
    """Returns what says how much time the next request of a call has, from now on."""
    if timeout is None or isinstance(timeout, UseDefault):
        return lambda: timeout
    deadline = time.monotonic() + (check_timeout("timeout", timeout) or 0.0)
    return lambda: max(deadline - time.monotonic(), 0.0)
