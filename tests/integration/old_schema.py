"""The schema of an earlier release: its messages, and a service that knows no other.

`schemas/*.binpb` are descriptor sets of earlier commits, named by their date, as written by
`buf build protos --as-file-descriptor-set --exclude-source-info`.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FOLDER = Path(__file__).parent / "schemas"
RELEASES = sorted(path.stem for path in FOLDER.glob("*.binpb"))


class OldSchema:
    """Messages and methods of a release, apart from those that are installed.

    Attributes:
        methods: path to descriptor, of every method.
    """

    def __init__(self, release: str) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(
            (FOLDER / f"{release}.binpb").read_bytes()
        )
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)
        services = [
            self._pool.FindServiceByName(f"{file.package}.{service.name}")
            for file in files.file
            for service in file.service
        ]
        self.methods = {
            f"/{service.full_name}/{method.name}": method
            for service in services
            for method in service.methods
        }

    def message(self, name: str) -> type[Any]:
        """Returns the class of a message of the package."""
        found = self._pool.FindMessageTypeByName(f"lockstep.v1.{name}")
        return message_factory.GetMessageClass(found)

    def known(self, message_type: Any, data: bytes) -> bytes:
        """Returns a message without what the release does not know of it."""
        message = message_factory.GetMessageClass(message_type)()
        message.ParseFromString(data)
        message.DiscardUnknownFields()
        return message.SerializeToString()

    def call(self, channel: grpc.Channel, path: str, *requests: Any) -> list[Any]:
        """Calls a method as a client of the release does, and returns its answers."""
        method = self.methods[path]
        for request in requests:
            assert request.DESCRIPTOR is method.input_type
        stub = channel.stream_stream(path)  # one message either way is a unary call
        answer = message_factory.GetMessageClass(method.output_type)
        calls = stub(iter([request.SerializeToString() for request in requests]), timeout=60)
        return [answer.FromString(data) for data in calls]


class _OldService(grpc.GenericRpcHandler):
    """Passes on what the release knows, in both directions, and knows no other method."""

    def __init__(self, schema: OldSchema, channel: grpc.Channel) -> None:
        self._schema = schema
        self._channel = channel

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self._schema.methods.get(details.method)
        if method is None:
            return None
        known = self._schema.known

        def behavior(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            passed = (known(method.input_type, request) for request in requests)
            call = self._channel.stream_stream(details.method)(passed, timeout=60)
            context.add_callback(call.cancel)
            try:
                for answer in call:
                    yield known(method.output_type, answer)
            except grpc.RpcError as error:
                context.set_trailing_metadata(error.trailing_metadata())
                context.abort(error.code(), error.details())

        return grpc.stream_stream_rpc_method_handler(behavior)


@contextmanager
def old_service(schema: OldSchema, address: str) -> Iterator[str]:
    """Serves as a release did, by a service of today; yields the address."""
    with grpc.insecure_channel(address) as channel:
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers((_OldService(schema, channel),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
