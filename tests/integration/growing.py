"""A tokenizer service whose vocabulary tests grow, and what they ask of a model that follows it."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lockstep.v1 import (
    model_admin_service_pb2,
    tensor_pb2,
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
    vocabulary_admin_service_pb2,
    vocabulary_admin_service_pb2_grpc,
    vocabulary_pb2,
)

from tests.integration.model_process import ModelProcess
from tests.services import START_TIMEOUT_S, ServiceProcess, running_process


def with_values(
    content: str, inputs: np.ndarray, outputs: np.ndarray | None = None
) -> vocabulary_admin_service_pb2.TokenToAdd:
    """A control token with trained vectors, `[H]` each."""
    return vocabulary_admin_service_pb2.TokenToAdd(
        token=vocabulary_pb2.AddedToken(content=content, special=True),
        initialization=vocabulary_pb2.ROW_INITIALIZATION_VALUES,
        input_values=_tensor(inputs),
        output_values=None if outputs is None else _tensor(outputs),
    )


def _tensor(values: np.ndarray) -> tensor_pb2.Tensor:
    data = values.astype("<f4").tobytes()
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[len(values)], data=data)


class Tokenizer:
    """Stubs of a tokenizer service."""

    def __init__(self, process: ServiceProcess, channel: grpc.Channel | None = None) -> None:
        self.process = process
        self.address = process.address
        self.channel = channel or grpc.insecure_channel(process.address)
        self.service = tokenizer_service_pb2_grpc.TokenizerServiceStub(self.channel)
        self.admin = vocabulary_admin_service_pb2_grpc.VocabularyAdminServiceStub(self.channel)

    def add(
        self, *contents: str, generable: bool | None = None
    ) -> vocabulary_admin_service_pb2.AddTokensResponse:
        tokens = [
            vocabulary_admin_service_pb2.TokenToAdd(
                token=vocabulary_pb2.AddedToken(content=content, special=True),
                generable=generable,
            )
            for content in contents
        ]
        return self.add_tokens(*tokens)

    def add_tokens(
        self,
        *tokens: vocabulary_admin_service_pb2.TokenToAdd,
        allow_text_changes: bool = False,
    ) -> vocabulary_admin_service_pb2.AddTokensResponse:
        return self.admin.AddTokens(
            vocabulary_admin_service_pb2.AddTokensRequest(
                tokens=tokens,
                idempotency_key=str(uuid.uuid4()),
                allow_text_changes=allow_text_changes,
            ),
            timeout=10,
        )

    def give(
        self, role: vocabulary_pb2.SpecialTokenRole, token_id: int
    ) -> vocabulary_pb2.VocabularyRef:
        """Gives a role to an id and returns the revision."""
        request = vocabulary_admin_service_pb2.SetSpecialTokensRequest(
            special_tokens=[vocabulary_pb2.SpecialToken(role=role, token_id=token_id)],
            idempotency_key=str(uuid.uuid4()),
        )
        return self.admin.SetSpecialTokens(request, timeout=10).vocabulary

    def newest(self) -> vocabulary_pb2.VocabularyRef:
        request = tokenizer_service_pb2.GetTokenizerInfoRequest()
        return self.service.GetTokenizerInfo(request, timeout=30, wait_for_ready=True).vocabulary


@contextmanager
def running_tokenizer(checkpoint: Path, folder: Path, *flags: str) -> Iterator[Tokenizer]:
    """Runs a tokenizer service on a checkpoint, with its store in a folder, until it is loaded."""
    flags = (f"--model={checkpoint}", f"--store=sqlite:///{folder / 'store.db'}", *flags)
    with running_process("tokenizer_service", *flags, folder=folder) as process:
        _wait_until_loaded(process)
        tokenizer = Tokenizer(process)
        with tokenizer.channel:
            yield tokenizer


def _wait_until_loaded(process: ServiceProcess) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with grpc.insecure_channel(process.health_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        serving = health_pb2.HealthCheckResponse.SERVING
        while stub.Check(request, timeout=60, wait_for_ready=True).status != serving:
            assert time.monotonic() < deadline, process.log.read_text()
            time.sleep(0.02)


def state(service: ModelProcess) -> model_admin_service_pb2.GetVocabularyStateResponse:
    """Asks a model service for the state of its vocabulary."""
    request = model_admin_service_pb2.GetVocabularyStateRequest()
    return service.admin.GetVocabularyState(request, timeout=10)
