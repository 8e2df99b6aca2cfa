"""How a channel is made: transport security, limits and keepalive."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

import grpc
import numpy as np

from lockstep_client._transport import address, bearer_token, service_config
from lockstep_client._transport.bearer_token import Token
from lockstep_client.exceptions import WrongType, WrongValue

MAX_RECEIVE_BYTES: Final = 64 * 1024 * 1024
DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_STREAM_TIMEOUT_S: Final = 600.0
DEFAULT_RETRIES: Final[int] = service_config.POLICY["maxAttempts"] - 1
MAX_UNARY_CALLS: Final = 128
"""Most calls with one answer at a time over one connection; more wait here. Services take 256 (see
`--max-streams-per-connection`), which a new connection does not know yet."""
GRACE_S: Final = 0.25
"""How long gRPC has, after the deadline of a call, to end it by itself."""

CHANNEL_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    # Finds a dead connection under a silent stream within 40 s. Without the last
    # two, gRPC waits longer for the answer to a ping, and sends only two of them.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.service_config", service_config.BALANCING),
    # Notices a service that comes (back) up within about two seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class UseDefault:
    """Stands for the client's own timeout, where None means no timeout."""

    def __repr__(self) -> str:
        return "USE_DEFAULT"


USE_DEFAULT: Final = UseDefault()

Timeout = float | None | UseDefault


Follow = bool | Sequence[str]
"""Where calls of a session may follow it: True for addresses that prove to be of the same service,
False for nowhere, or a list of hosts, in which `*` stands for any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Transport security of a connection.

    `Tls()` trusts the authorities that gRPC ships with.

    Attributes:
        ca: PEM certificates of the authorities to trust instead.
        certificate: PEM chain that this client shows (mutual TLS).
        key: PEM private key of `certificate`.
        server_name: name to expect in the server's certificate, where it is not
            that of the address.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "certificate", "key"):
            if not isinstance(getattr(self, name), bytes | None):
                raise WrongType(f"{name} is the content of a PEM file, bytes, not another value.")
        if (self.certificate is None) != (self.key is None):  # gRPC would end the process
            raise WrongValue("`certificate` and `key` are given together, or neither of them is.")

    def credentials(self) -> grpc.ChannelCredentials:
        """Builds what grpcio calls them."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca, private_key=self.key, certificate_chain=self.certificate
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service to connect to.

    Attributes:
        service: which one.
        address: gRPC target, for example `localhost:50051` or `dns:///host:port`.
        tls: transport security; None sends plain text.
        timeout_s: of calls with one answer; None means no limit.
        stream_timeout_s: of calls that stream; None means no limit.
        retries: how often a call is repeated while the service is away, or says when to
            come back; see `retries`.
        token: shown with every call, or None.
        token_in_plain_text: whether it may be without `tls`.
        follow: where calls of a session may go when the service says which of its replicas has
            it, see `Follow`.
        prefix_routing: whether gateways are told how prompts begin, see `prompt_prefix`.
    """

    service: Literal["tokenizer", "model"]
    address: str
    tls: Tls | None = None
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    stream_timeout_s: float | None = DEFAULT_STREAM_TIMEOUT_S
    retries: int = DEFAULT_RETRIES
    token: Token | None = field(default=None, repr=False)
    token_in_plain_text: bool = False
    follow: Follow = True
    prefix_routing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "follow", _check_follow(self.follow))
        address.check(self.service, self.address)
        if not isinstance(self.tls, Tls | None):
            raise WrongType(f"tls is Tls(), or Tls(ca=...), or None, not {self.tls!r}.")
        check_timeout("timeout", self.timeout_s)
        check_timeout("stream_timeout", self.stream_timeout_s)
        bearer_token.check(
            self.token, secure=self.tls is not None, in_plain_text=self.token_in_plain_text
        )

    def without_retries(self) -> "Endpoint":
        """Returns the same service, for a caller that asks again by itself."""
        return replace(self, retries=0)

    def replica(self, of_replica: str) -> "Endpoint | None":
        """Returns the endpoint of one replica of this service; None where it is not trusted.

        An answer names it, and whoever has written that answer must not be able to send this
        client anywhere. With TLS the replica has to show a certificate for the name that is
        expected of the service itself. In plain text, where nobody can prove who he is, the
        address has to be of the same host or below it. Hosts that `follow` lists are trusted.

        Args:
            of_replica: `HOST:PORT`.
        """
        host = address.host(of_replica)
        if host is None or self.follow is False:
            return None
        tls = self.tls
        if self.follow is not True:
            trusted = any(fnmatchcase(host, pattern) for pattern in self.follow)
        elif tls is None:
            trusted = any(address.is_within(host, own) for own in address.hosts(self.address))
        else:
            name = tls.server_name or address.host(self.address)
            trusted, tls = name is not None, replace(tls, server_name=name)
        return replace(self, address=of_replica, tls=tls) if trusted else None

    @property
    def peer(self) -> str:
        """Who is called, for messages."""
        return f"the {self.service} service at {self.address}"

    def options(self, *, streams: bool, shared: bool = True) -> list[tuple[str, str | int]]:
        """Returns the options of a channel.

        Args:
            streams: whether its calls stream. gRPC makes no second attempt of these.
            shared: whether it may use a connection that is there.
        """
        options = [*CHANNEL_OPTIONS, ("grpc.enable_retries", int(not streams))]
        if not shared:
            options.append(("grpc.use_local_subchannel_pool", 1))
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def unary_timeout_s(self, timeout: Timeout) -> float | None:
        """Returns the timeout of a call with one answer."""
        return (
            self.timeout_s if isinstance(timeout, UseDefault) else check_timeout("timeout", timeout)
        )

    def streaming_timeout_s(self, timeout: Timeout) -> float | None:
        """Returns the timeout of a call that streams."""
        if isinstance(timeout, UseDefault):
            return self.stream_timeout_s
        return check_timeout("timeout", timeout)


def _check_follow(follow: Any) -> bool | tuple[str, ...]:
    """Returns what may be followed, so that it can be compared.

    Raises:
        WrongType: it is not True, False or a list of texts.
    """
    if isinstance(follow, bool):
        return follow
    if isinstance(follow, Sequence) and not isinstance(follow, str):
        hosts = tuple(follow)
        if all(isinstance(host, str) for host in hosts):
            return hosts
    raise WrongType(f"follow is True, False, or a list of hosts, not {follow!r}.")


def check_timeout(keyword: str, timeout_s: Any) -> float | None:
    """Returns a timeout, in seconds.

    Raises:
        WrongType: it is not a number, and not None.
        WrongValue: it is negative, or not finite.
    """
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float | np.number):
        raise WrongType(f"{keyword} is a number of seconds, or None for none, not {timeout_s!r}.")
    if not 0 <= timeout_s < math.inf:
        raise WrongValue(f"{keyword} is at least 0 seconds, or None for none, not {timeout_s!r}.")
    return float(timeout_s)
