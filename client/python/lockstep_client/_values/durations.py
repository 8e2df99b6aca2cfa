"""Durations of the wire as seconds and back."""

import math
from numbers import Real

from google.protobuf.duration_pb2 import Duration

from lockstep_client.exceptions import WrongType


def message(seconds: float | None) -> Duration | None:
    """Builds a duration; None stays unset.

    Raises:
        InvalidArgument: it has another form.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not math.isfinite(seconds):
        raise WrongType(f"a time is a number of seconds, not {seconds!r}.")
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def seconds(duration: Duration) -> float:
    """Returns a duration in seconds."""
    return duration.ToNanoseconds() / 1e9
