"""Durations of the wire as seconds and back."""

from google.protobuf.duration_pb2 import Duration


def message(seconds: float | None) -> Duration | None:
    """Builds a duration; None stays unset."""
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def seconds(duration: Duration) -> float:
    """Returns a duration in seconds."""
    return duration.ToNanoseconds() / 1e9
