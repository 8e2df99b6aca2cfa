"""What a trace shows of the engine's work: how long rows waited, and what they took then.

The engine knows no traces. It says how long each part took, and the parts are placed one behind the
other from the moment on in which the front sent the call.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from model_service.protocol import (
    OpenSession,
    Request,
    SequenceTokens,
    SessionAnswer,
    StepSession,
)
from rpc.tracing import Trace

_NS_PER_S = 1_000_000_000

Part = tuple[str, float, Mapping[str, int]]
"""Name, seconds and attributes."""


def add_sequence(trace: Trace, sent_ns: int, event: SequenceTokens) -> None:
    """Adds what a sequence has gone through, with its last event.

    Args:
        trace: the trace of its call.
        sent_ns: when the call was sent, in nanoseconds of Unix time.
        event: the event.
    """
    finish = event.finish
    assert finish is not None, "Called with a sequence's last event."
    row = {"lockstep.sequence": event.row}
    failure = "" if finish.failure is None else finish.failure.error
    parts: list[Part] = [("queue", finish.queue_s, row)]
    if finish.steps:
        cached = {"lockstep.cached_tokens": finish.cached_prompt_tokens}
        parts.append(("prefill", finish.prefill_s, row | cached))
    if finish.decode_s:
        parts.append(("decode", finish.decode_s, row | {"lockstep.steps": finish.steps}))
    _add(trace, sent_ns, parts, failure)


def add_unfinished(
    trace: Trace, sent_ns: int, first_ns: Mapping[int, int | None], failure: str
) -> None:
    """Adds how far sequences had come that were left before their ends, as seen from here.

    Where such a sequence had no token, only the engine knows whether it waited or ran.

    Args:
        trace: the trace of its call.
        sent_ns: when the call was sent, in nanoseconds of Unix time.
        first_ns: when the first token of each came, by row; None where none did.
        failure: the error that its call was ended with, if it was.
    """
    now_ns = time.time_ns()
    for row, begun_ns in first_ns.items():
        attributes = {"lockstep.sequence": row}
        first_error = "" if begun_ns else failure
        trace.add("first_token", sent_ns, begun_ns or now_ns, attributes, first_error)
        if begun_ns:
            trace.add("decode", begun_ns, now_ns, attributes, failure)


def add_session(trace: Trace, sent_ns: int, request: Request[Any], answer: SessionAnswer) -> None:
    """Adds what the rows of a session have gone through together.

    Args:
        trace: the trace of the call.
        sent_ns: when the call was sent, in nanoseconds of Unix time.
        request: what was sent.
        answer: what came back.
    """
    if not isinstance(request, OpenSession | StepSession):
        return  # it runs no step
    counts = _new_tokens(request)
    name = "decode" if max(counts, default=0) <= 1 else "prefill"
    rows = {"lockstep.sequences": sum(map(bool, counts))}
    tokens = {"lockstep.tokens": sum(counts), "lockstep.cached_tokens": answer.cached_tokens}
    _add(trace, sent_ns, [("queue", answer.queue_s, rows), (name, answer.run_s, rows | tokens)])


def _new_tokens(request: OpenSession | StepSession) -> list[int]:
    """Returns how many tokens each row gets."""
    if isinstance(request, OpenSession):
        return [len(spec.prompt_token_ids) for spec in request.sequences]
    return [len(row.token_ids) for row in request.rows]


def _add(trace: Trace, start_ns: int, parts: Sequence[Part], failure: str = "") -> None:
    """Adds parts one behind the other; what has failed did so in the last of them."""
    for index, (name, seconds, attributes) in enumerate(parts, 1):
        end_ns = start_ns + round(seconds * _NS_PER_S)
        trace.add(name, start_ns, end_ns, attributes, failure if index == len(parts) else "")
        start_ns = end_ns
