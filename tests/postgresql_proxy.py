"""A connection to PostgreSQL that breaks in the middle of COMMIT."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CommitBreaker:
    """Passes connections on, and cuts those whose client commits while it is armed.

    Attributes:
        port: where it listens.
        reaches_server: whether the server still receives the COMMIT that is cut off.
        num_to_cut: how many more it cuts.
        num_cut: how many it has cut.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.reaches_server = True
        self.num_to_cut = 0
        self.num_cut = 0

    def serve(self) -> None:
        """Accepts connections until it is closed."""
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Accepts no more; open connections go on until one of their sides ends."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            peers = {client: server, server: client}
            while True:
                readable, _, _ = select.select(list(peers), [], [])
                for one in readable:
                    data = one.recv(2**16)
                    if not data:
                        return
                    is_cut = one is client and b"COMMIT\0" in data and self.num_to_cut > 0
                    if is_cut:
                        self.num_to_cut -= 1
                        self.num_cut += 1
                    if not is_cut or self.reaches_server:
                        peers[one].sendall(data)
                    if is_cut and self.reaches_server:
                        server.recv(2**16)  # the outcome, which the client never hears
                    if is_cut:
                        return


@contextmanager
def breaking_commits(server_port: int) -> Iterator[CommitBreaker]:
    """Runs a proxy before a server."""
    proxy = CommitBreaker(server_port)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
