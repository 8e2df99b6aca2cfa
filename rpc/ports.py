"""The gRPC ports of a service: one for callers, and one for admins where they have their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from rpc.identity.roles import is_for_admins
from rpc.settings import ServerSettings

MakeServer = Callable[[Sequence[str]], grpc.aio.Server]
"""Makes a server of gRPC that offers the services of these names."""


class GrpcPorts:
    """Takes servicers as a server of gRPC does, and serves each at the ports that offer it.

    Attributes:
        port: where all services are, or those that are not for admins; 0 before it is bound.
        admin_port: where all services are if admins have a port of their own; else None.
    """

    def __init__(
        self, settings: ServerSettings, service_names: Sequence[str], make_server: MakeServer
    ) -> None:
        """Binds nothing yet.

        Args:
            settings: which ports there are.
            service_names: full names of the services that will be registered.
            make_server: makes the server of a port.
        """
        self._settings = settings
        self.port = 0
        self.admin_port: int | None = None
        self._admins = make_server(service_names) if settings.admin_port is not None else None
        hidden = self._admins is not None
        names = [name for name in service_names if not (hidden and is_for_admins(name))]
        self._callers = make_server(names)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Registers handlers, as generated code does."""
        if self._admins is None:
            self._callers.add_generic_rpc_handlers(handlers)
            return
        self._admins.add_generic_rpc_handlers(handlers)
        public = [each for each in handlers if not is_for_admins(_service_name(each))]
        self._callers.add_generic_rpc_handlers(public)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Does nothing, like the asyncio server of gRPC: generated code calls it, too."""

    def bind(self, credentials: grpc.ServerCredentials | None) -> None:
        """Binds the ports.

        Raises:
            OSError: a port is taken.
        """
        settings = self._settings
        self.port = bind(self._callers, settings.host, settings.port, credentials)
        if self._admins is not None and settings.admin_port is not None:
            host = settings.admin_host or settings.host
            self.admin_port = bind(self._admins, host, settings.admin_port, credentials)

    async def start(self) -> None:
        """Begins to serve."""
        for server in self._servers:
            await server.start()

    async def stop(self, grace_s: float) -> None:
        """Closes the ports and ends all calls."""
        for server in self._servers:
            await server.stop(grace_s)

    @property
    def _servers(self) -> list[grpc.aio.Server]:
        return [server for server in (self._callers, self._admins) if server is not None]


def bind(
    server: grpc.aio.Server | grpc.Server,
    host: str,
    port: int,
    credentials: grpc.ServerCredentials | None,
) -> int:
    """Binds a port and returns its number.

    Raises:
        OSError: it is taken.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise OSError(f"cannot listen on {address}: the port is in use or not allowed") from None


def _service_name(handler: grpc.GenericRpcHandler) -> str:
    return str(handler.service_name()) if isinstance(handler, grpc.ServiceRpcHandler) else ""
