"""Durations of requests."""

import math

from google.protobuf.duration_pb2 import Duration

NANOS = "nanos in [0, 999999999]"


def seconds(duration: Duration) -> float:
    """Returns a duration in seconds.

    A duration whose nanos are not in [0, 999999999] is not valid, though parsers
    accept it: it becomes NaN, which is outside every range. So does a negative one.
    """
    if not 0 <= duration.nanos < 1_000_000_000:
        return math.nan
    return float(duration.seconds + duration.nanos / 1e9)
