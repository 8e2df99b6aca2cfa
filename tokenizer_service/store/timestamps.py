"""Moments as the log writes them: whole microseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

MAX_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Returns the moment, exactly. The argument is in [0, `MAX_US`]."""
    return _EPOCH + microseconds * _MICROSECOND


def to_us(moment: datetime) -> int:
    """Returns the microseconds of a moment."""
    return (moment - _EPOCH) // _MICROSECOND
