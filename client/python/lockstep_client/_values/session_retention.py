"""How the sequences of a generation are kept as a session."""

from dataclasses import dataclass

from lockstep.v1 import model_service_pb2 as model_pb

from lockstep_client._values import durations
from lockstep_client.exceptions import WrongType


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRetention:
    """Says how long a generation is kept, and with how much room.

    Attributes:
        ttl_s: idle time after which it may be dropped; None means the server's
            default.
        max_length: most tokens that a row will hold, prompt and generated ones
            included; None means the server's default.
    """

    ttl_s: float | None = None
    max_length: int | None = None


def message(keep: SessionRetention | bool | None) -> model_pb.SessionRetention | None:
    """Builds the message; True means the server's defaults, False that nothing is kept.

    Raises:
        InvalidArgument: it has another form.
    """
    if not keep:
        return None
    if keep is not True and not isinstance(keep, SessionRetention):
        raise WrongType(f"keep_session is True, False or a SessionRetention, not {keep!r}.")
    retention = SessionRetention() if keep is True else keep
    return model_pb.SessionRetention(
        ttl=durations.message(retention.ttl_s), max_length=retention.max_length
    )
