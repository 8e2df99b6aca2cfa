"""Replicas of the tokenizer service that are killed and started again."""

import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import tokenizer_service_pb2_grpc, vocabulary_admin_service_pb2_grpc
from lockstep.v1 import vocabulary_admin_service_pb2 as pb

from tests.services import START_TIMEOUT_S, running_process
from vocabulary import Reference

ATTEMPT_TIMEOUT_S = 30.0


class Replica:
    """One service, at another address after each start. Any thread may call it."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder = folder
        self._flags = flags
        self._stack = ExitStack()
        self._running = threading.Event()
        folder.mkdir()

    def start(self) -> None:
        """Starts the service and waits until it serves."""
        service = self._stack.enter_context(
            running_process("tokenizer_service", *self._flags, folder=self._folder)
        )
        self._process = service.process
        channel = self._stack.enter_context(grpc.insecure_channel(service.address))
        self.tokenizer = tokenizer_service_pb2_grpc.TokenizerServiceStub(channel)
        self._admin = vocabulary_admin_service_pb2_grpc.VocabularyAdminServiceStub(channel)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.newest()
            except grpc.RpcError:
                assert time.monotonic() < deadline, "the replica does not become ready"
                time.sleep(0.05)
            else:
                break
        self._running.set()

    def kill(self) -> None:
        """Kills the service where it is."""
        self._running.clear()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def restart(self) -> None:
        """Starts the service again after a kill."""
        self._stack.close()
        self.start()

    def close(self) -> None:
        """Stops the service."""
        self._stack.close()

    @property
    def is_running(self) -> bool:
        """Whether it was not killed."""
        return self._running.is_set()

    def add(self, request: pb.AddTokensRequest) -> bytes | None:
        """Sends a call once. Returns its answer, None when there is none."""
        try:
            response = self._admin.AddTokens(request, timeout=ATTEMPT_TIMEOUT_S)
        except (grpc.RpcError, ValueError) as error:  # ValueError: its channel was closed
            if isinstance(error, grpc.RpcError) and error.code() not in RETRIED:
                raise
            return None
        answer: bytes = response.SerializeToString(deterministic=True)
        return answer

    def newest(self) -> Reference:
        """Returns the state that it serves."""
        info = self.tokenizer.GetTokenizerInfo(tokenizer_pb.GetTokenizerInfoRequest(), timeout=10)
        ref = info.vocabulary
        return Reference(ref.tokenizer_id, ref.revision, ref.fingerprint, ref.size)


# What a client retries with the same key: nobody knows whether the call was made.
RETRIED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
