"""How calls of a session find its replica, and what they say for gateways. Pure: no I/O."""

from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final

Metadata = tuple[tuple[str, str], ...]

TOKEN_KEY: Final = "x-session-token"
ID_KEY: Final = "x-session-id"


class Route:
    """How the replica of a session is found.

    Attributes:
        session_id: the session; empty before it is opened.
        token: what the service, or a gateway before it, has written; it is sent back as it is.
        channels: those over which its replica was reached, see `Dialer`; None for whichever.
    """

    def __init__(self, session_id: str = "", token: str = "", channels: object = None) -> None:
        self.session_id = session_id
        self.token = token
        self.channels = channels

    @property
    def metadata(self) -> Metadata:
        """What goes with each call."""
        said = ((ID_KEY, self.session_id), (TOKEN_KEY, self.token))
        return tuple((key, value) for key, value in said if value)

    def name(self, replica: str) -> None:
        """Takes the name of the session's replica, where no answer has brought a token."""
        if replica and not self.token:
            self.token = b64encode(replica.encode()).decode()

    def take(self, metadata: Iterable[Any] | None) -> None:
        """Takes what an answer says in its initial metadata."""
        for key, value in metadata or ():
            if key == TOKEN_KEY and isinstance(value, str):
                self.token = value
