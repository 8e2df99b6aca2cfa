"""Times of the wire, in seconds."""

import math

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

NANOS = "nanos in [0, 999999999]"


def seconds(duration: Duration) -> float:
    """Returns a duration in seconds.

    A duration whose nanos are not in [0, 999999999] is not valid, though parsers let it
    pass: it is NaN, which is in no range. So is a negative one, which no field takes.
    """
    if not 0 <= duration.nanos < 1_000_000_000:
        return math.nan
    return float(duration.seconds + duration.nanos / 1e9)


def duration(seconds: float) -> Duration:
    """Writes a time span."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def timestamp(seconds: float) -> Timestamp:
    """Writes a point in time, given in seconds since 1970."""
    message = Timestamp()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
