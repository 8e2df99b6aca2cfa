"""A tokenizer service in a process of its own, and stubs to call it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from lockstep.v1 import (
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
    vocabulary_admin_service_pb2_grpc,
)

from tests.integration.rpc_probe import Failure
from tests.services import START_TIMEOUT_S, ServiceProcess, running_process


class TokenizerStubs:
    """Both services of one process.

    Attributes:
        service: the process.
        tokenizer: stub of `TokenizerService`.
        admin: stub of `VocabularyAdminService`.
        channel: the channel of both.
    """

    def __init__(self, service: ServiceProcess, channel: grpc.Channel) -> None:
        self.service = service
        self.channel = channel
        self.tokenizer = tokenizer_service_pb2_grpc.TokenizerServiceStub(channel)
        self.admin = vocabulary_admin_service_pb2_grpc.VocabularyAdminServiceStub(channel)

    def info(self) -> tokenizer_service_pb2.GetTokenizerInfoResponse:
        """Describes the tokenizer."""
        return self.tokenizer.GetTokenizerInfo(tokenizer_service_pb2.GetTokenizerInfoRequest())

    def wait_until_ready(self) -> None:
        """Waits while the tokenizer loads."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.info()
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


@contextmanager
def running_tokenizer(
    model: Path,
    folder: Path,
    *flags: str,
    store: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[TokenizerStubs]:
    """Runs a service whose store is a file in `folder`, so that a second run finds it.

    Args:
        model: the tokenizer's folder.
        folder: where the store and the log go.
        flags: further settings.
        store: another file, or the URL of another store.
        environment: variables beside those of this process.
    """
    folder.mkdir(exist_ok=True)
    store = store or folder / "vocabulary.sqlite"
    url = store if isinstance(store, str) else f"sqlite:///{store}"
    with (
        running_process(
            "tokenizer_service",
            f"--model={model}",
            f"--store={url}",
            *flags,
            folder=folder,
            environment=environment,
        ) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        stubs = TokenizerStubs(service, channel)
        stubs.wait_until_ready()
        yield stubs


def failure_of(call: object, *arguments: object) -> Failure:
    """Makes a call, or reads a stream, that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        _exhaust(call(*arguments))
    return Failure(caught.value)


def _exhaust(result: object) -> None:
    if hasattr(result, "__next__"):
        for _ in result:
            pass
