"""What an address of a service looks like."""

import re
from typing import Final

from lockstep_client.exceptions import WrongType, WrongValue

_PORTS: Final = {"tokenizer": 50051, "model": 50052}
_URL: Final = re.compile(r"(https?|grpcs?)://", re.IGNORECASE)
_OTHER_TARGET: Final = re.compile(r"(unix|unix-abstract|ipv4|ipv6|vsock|xds):")
_DNS: Final = re.compile(r"dns:(//[^/]*/)?")
_HOST_AND_PORT: Final = re.compile(r"(\[[^]]+\]|[^:/\[\]]+):(\d+)")
_LIST: Final = re.compile(r"ipv[46]:")
_LAST_PORT: Final = 65535
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def check(service: str, address: object) -> None:
    """Refuses an address that cannot be one.

    Args:
        service: `tokenizer` or `model`, as the keyword is called.
        address: `HOST:PORT`, or another target of gRPC, for example `dns:///host:port`.

    Raises:
        TypeError: it is not a text.
        ValueError: it has no host or port, or is a URL.
    """
    if not isinstance(address, str):
        raise WrongType(f"{service}={address!r}: an address is a text such as {_example(service)}.")
    if (problem := fault(address)) is not None:
        raise WrongValue(f"{service}={address!r}: {problem}, such as {_example(service)}.")


def host(address: str) -> str | None:
    """Returns the host of an address, in lower case; None where it names none, or several."""
    found = _HOST_AND_PORT.fullmatch(_DNS.sub("", address, count=1))
    return None if found is None or _problem(address) else found[1].strip("[]").lower()


def hosts(address: str) -> list[str]:
    """Returns the hosts of an address, of which `ipv4:` and `ipv6:` may list several."""
    listed = _LIST.match(address)
    each = address[listed.end() :].split(",") if listed else [address]
    return [found for found in map(host, each) if found is not None]


def is_within(inner: str, outer: str) -> bool:
    """Says whether a host is another one, or has a name below it, or both are this machine."""
    return inner == outer or inner.endswith(f".{outer}") or {inner, outer} <= _LOOPBACK


def fault(address: str) -> str | None:
    """Says what is wrong with an address and what is right; None where it can be one."""
    problem = _problem(address)
    return None if problem is None else f"{problem}; an address is HOST:PORT"


def _problem(address: str) -> str | None:
    if url := _URL.match(address):
        return f"{url[0]} is not part of an address"
    if _OTHER_TARGET.match(address):
        return None
    rest = _DNS.sub("", address, count=1)
    if found := _HOST_AND_PORT.fullmatch(rest):
        return None if 0 < int(found[2]) <= _LAST_PORT else "a port is from 1 to 65535"
    if re.fullmatch(r"[^:/]+:?", rest):
        return "the port is missing"
    return "a host and a port cannot be read from it"


def _example(service: str) -> str:
    return f"'localhost:{_PORTS[service]}'"
