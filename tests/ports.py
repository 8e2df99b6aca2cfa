"""Ports for servers that keep theirs over restarts, so that they cannot ask for port 0."""

import random
import socket

# Below the ports that the kernel gives to connections and to port 0 (on Linux from 32768
# on), so that nothing takes one between the moment it is chosen and the one it is bound.
_PORTS = range(20_000, 32_768)


def free_port() -> int:
    """Returns a port of the loopback interface that nobody listens on."""
    while True:
        # Of the operating system's randomness: a test's seed would give it to another process too.
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
