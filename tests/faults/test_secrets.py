"""What callers send, and where it must not come out again (R21)."""

import random
import secrets
from collections.abc import Iterator
from contextlib import suppress
from urllib.request import urlopen

import grpc
import pytest
from google.protobuf.message import Message
from lockstep.v1 import (
    generation_pb2,
    logits_session_service_pb2,
    logits_session_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
    vocabulary_admin_service_pb2,
    vocabulary_admin_service_pb2_grpc,
    vocabulary_pb2,
)

from tests.checkpoint_factory import make_checkpoint
from tests.correctness.sizes import sizes
from tests.faults.watch import Held
from tests.integration.model_process import ragged
from tests.services import Services, running_services

# Names that a caller made up and that errors name, as errors.md says; of no use to others.
ECHOED = ("sessionId", "requestTokenizerId", "requestFingerprint")


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("secrets")
    with running_services(make_checkpoint(folder / "tiny"), folder) as running:
        yield running


def messages(secret: str) -> list[tuple[str, Message]]:
    """Returns calls with a secret in every place that takes a text, good ones and bad ones."""
    prompt = ragged([5, 6])
    stops = generation_pb2.GenerationConfig(max_new_tokens=1, stop_strings=[secret])
    bad = generation_pb2.GenerationConfig(max_new_tokens=-1, stop_strings=[secret])
    reference = vocabulary_pb2.VocabularyRef(tokenizer_id=secret, fingerprint=secret, revision=3)
    token = vocabulary_admin_service_pb2.TokenToAdd(
        token=vocabulary_pb2.AddedToken(content=f"<{secret}>")
    )
    message = {"role": "user", "content": secret}
    return [
        ("Encode", tokenizer_service_pb2.EncodeRequest(items=[{"text": secret}])),
        ("CountTokens", tokenizer_service_pb2.CountTokensRequest(items=[{"text": secret}])),
        ("Encode", tokenizer_service_pb2.EncodeRequest(items=[{"text": secret}] * 5000)),
        (
            "ApplyChatTemplate",
            tokenizer_service_pb2.ApplyChatTemplateRequest(conversations=[{"messages": [message]}]),
        ),
        (
            "ApplyChatTemplate",
            tokenizer_service_pb2.ApplyChatTemplateRequest(
                conversations=[{"messages": [{**message, "extra_json": f'{{"{secret}'}]}]
            ),
        ),
        (
            "AddTokens",
            vocabulary_admin_service_pb2.AddTokensRequest(
                tokens=[token], idempotency_key=secret, dry_run=True
            ),
        ),
        (
            "AddTokens",
            vocabulary_admin_service_pb2.AddTokensRequest(
                tokens=[token, token], idempotency_key="00000000-0000-4000-8000-000000000000"
            ),
        ),
        ("Generate", model_service_pb2.GenerateRequest(prompt=prompt, generation_config=stops)),
        ("Generate", model_service_pb2.GenerateRequest(prompt=prompt, generation_config=bad)),
        ("Generate", model_service_pb2.GenerateRequest(prompt=prompt, cache_salt=secret)),
        ("Generate", model_service_pb2.GenerateRequest(prompt=prompt, cache_salt=secret * 100)),
        ("Generate", model_service_pb2.GenerateRequest(prompt=prompt, session_id=secret)),
        ("Generate", model_service_pb2.GenerateRequest(prompt=prompt, vocabulary=reference)),
        ("Step", logits_session_service_pb2.StepRequest(session_id=secret, step_id=secret)),
    ]


@sizes("num_secrets", ci=70, full=1000)
def test_no_secret_comes_out_anywhere(services, num_secrets):
    stubs = []
    channels = [grpc.insecure_channel(s.address) for s in (services.tokenizer, services.model)]
    tokenizer, model = channels
    stubs = [
        tokenizer_service_pb2_grpc.TokenizerServiceStub(tokenizer),
        vocabulary_admin_service_pb2_grpc.VocabularyAdminServiceStub(tokenizer),
        model_service_pb2_grpc.ModelServiceStub(model),
        logits_session_service_pb2_grpc.LogitsSessionServiceStub(model),
    ]
    names = [f"canary{secrets.token_hex(12)}" for _ in range(num_secrets)]
    said, ends, series = [], 0, []
    rng = random.Random(0)
    for index, name in enumerate(names):
        if index == num_secrets // 10:  # every code and reason has been met
            series = [Held.by(s).series for s in (services.tokenizer, services.model)]
        calls = messages(name) if index < num_secrets // 10 else rng.sample(messages(name), 4)
        for method, message in calls:
            call = next(getattr(stub, method) for stub in stubs if hasattr(stub, method))
            metadata = (("authorization", f"Bearer {name}"), ("x-custom", name))
            try:
                call(message, metadata=metadata, timeout=60)
            except grpc.RpcError as error:
                ends += 1
                said.append(error.details())
                said += details_of(error)
    for channel in channels:
        channel.close()
    with suppress(TypeError):
        said = [text for text in said if text]
    pages = [
        urlopen(s.metrics_url, timeout=30).read().decode()
        for s in (services.tokenizer, services.model)
    ]
    logs = [s.log.read_text() for s in (services.tokenizer, services.model)]
    everything = "\n".join([*said, *pages, *logs])
    assert [name for name in names if name in everything] == []
    assert ends > num_secrets / 2
    assert [Held.by(s).series for s in (services.tokenizer, services.model)] == series


def details_of(error: grpc.RpcError) -> list[str]:
    """Returns every text in the details of a failure, but for names that it echoes."""
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
    from grpc_status import rpc_status

    info, request = ErrorInfo(), BadRequest()
    status = rpc_status.from_call(error)
    assert status is not None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(request)
    texts = [value for key, value in info.metadata.items() if key not in ECHOED]
    return [*texts, *(v.field + v.description for v in request.field_violations)]
