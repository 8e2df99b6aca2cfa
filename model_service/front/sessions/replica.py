"""This replica among those that serve the same model: its name, and where each is reached.

A session lives in one replica. So its name begins with the replica's: whoever gets a
call for it knows whose it is, without asking anybody.
"""

import binascii
import re
import secrets
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from rpc.errors import ServiceError, SessionNotFound, SessionOnOtherReplica

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_POD = re.compile(rf"(?P<namespace>{_LABEL})/(?P<pod>{_LABEL})")
_HOST_AND_PORT = re.compile(rf"(?:{_LABEL})(?:\.{_LABEL})*:[0-9]{{1,5}}")


def default_name(environment: Mapping[str, str], host: str, port: int) -> str:
    """Returns the name of a replica that was given none.

    Args:
        environment: variables; a pod has `POD_NAMESPACE` and `POD_NAME` from its manifest.
        host: name of this machine.
        port: where it serves.
    """
    namespace, pod = environment.get("POD_NAMESPACE"), environment.get("POD_NAME")
    return f"{namespace}/{pod}" if namespace and pod else f"{host}:{port}"


@dataclass(slots=True)
class Replica:
    """One replica.

    Attributes:
        name: its name, `namespace/pod` or `host:port` unless an operator chose another. It is
            known once the port is.
        address_pattern: where a replica is reached alone, `{namespace}` and `{pod}` standing for
            the parts of its name; empty if that is not to be told.
    """

    name: str = ""
    address_pattern: str = ""

    @property
    def token(self) -> str:
        """The value of `x-session-token`: the name as llm-d's session filter writes it."""
        return b64encode(self.name.encode()).decode()

    def new_session_id(self) -> str:
        """Returns a name for a session: this replica's, and 128 bits that nobody can guess."""
        return f"{_tag(self.name)}.{secrets.token_urlsafe(16)}"

    def absence(self, session_id: str) -> ServiceError:
        """Returns why a session is not here: it is elsewhere, or nowhere."""
        name = _name(session_id.rpartition(".")[0])
        if not name or name == self.name:
            return SessionNotFound(session_id)
        return SessionOnOtherReplica(session_id, replica=name, address=self._address(name))

    def _address(self, name: str) -> str:
        """Returns where a replica is reached alone, as far as that follows from its name.

        The name comes from a caller, who may have been handed it by somebody else. In a
        pattern it therefore takes the place of single labels only, of this namespace.
        """
        if _HOST_AND_PORT.fullmatch(name) and _HOST_AND_PORT.fullmatch(self.name):
            return name
        found, own = _POD.fullmatch(name), _POD.fullmatch(self.name)
        if found is None or own is None or found["namespace"] != own["namespace"]:
            return ""
        return self.address_pattern.format_map(found.groupdict())


def public_part(session_id: str) -> str:
    """Returns what may be written of a session's name: enough to tell it from others."""
    return session_id.rpartition(".")[2][:8]


def _tag(name: str) -> str:
    return urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name(tag: str) -> str:
    """Reads the name of a replica; empty where that is not one."""
    try:
        name = urlsafe_b64decode(tag + "=" * (-len(tag) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
    return name if _tag(name) == tag else ""
