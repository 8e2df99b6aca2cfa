"""Every response of every method names the vocabulary that it is about."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import model_admin_service_pb2 as admin_pb
from lockstep.v1 import model_info_service_pb2 as info_pb
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import tokens_pb2, vocabulary_pb2
from lockstep.v1 import vocabulary_admin_service_pb2 as vocabulary_admin_pb

from tests.checkpoint_factory import make_checkpoint
from tests.correctness.test_determinism_stamp import within
from tests.integration.growing import Tokenizer
from tests.integration.model_process import ragged
from tests.services import Services, running_services

TOKENIZER = ("TokenizerService", "VocabularyAdminService")
MODEL = ("ModelService", "LogitsSessionService", "ModelInfoService", "ModelAdminService")
REFERENCE = vocabulary_pb2.VocabularyRef.DESCRIPTOR.full_name
NEW_TOKEN = {"token": {"content": "<new>", "special": True}}
ROWS = tokens_pb2.TokenBatch(sequences=[tokens_pb2.TokenSequence(ids=[5, 6])])
GENERATE = {"prompt": ragged([5, 6]), "generation_config": {"max_new_tokens": 2}}
PART_OF_STREAM = {"GenerateStream": 0, "GetTokenizerArtifact": -1}  # says it for all parts


def methods(services: tuple[str, ...]) -> list[MethodDescriptor]:
    pool = descriptor_pool.Default()
    return [
        method
        for service in services
        for method in pool.FindServiceByName(f"lockstep.v1.{service}").methods
    ]


def full_name(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


@pytest.mark.parametrize("method", methods(TOKENIZER + MODEL), ids=full_name)
def test_a_response_has_a_place_for_its_vocabulary(method):
    assert REFERENCE in within(method.output_type)


def references(message: Message) -> Iterator[vocabulary_pb2.VocabularyRef]:
    """Finds the references that a message holds, itself included."""
    if isinstance(message, vocabulary_pb2.VocabularyRef):
        yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for part in [value] if isinstance(value, Message) else value:
            yield from references(part)


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("stamped")
    with running_services(make_checkpoint(folder / "tiny", "llama"), folder) as running:
        yield running


def call(channel: grpc.Channel, method: MethodDescriptor, request: Message) -> list[Message]:
    """Calls a method and returns all of its responses."""
    kinds = {
        (False, False): channel.unary_unary,
        (True, False): channel.stream_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }
    stub = kinds[method.client_streaming, method.server_streaming](
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    sent = iter([request]) if method.client_streaming else request
    answer = stub(sent, timeout=30)
    if not method.server_streaming:
        return [answer]
    responses = []
    for response in answer:
        responses.append(response)
        if method.name == "WatchVocabulary" and response.WhichOneof("event") == "heartbeat":
            answer.cancel()
            break
    return responses


def requests(session_id: Callable[[], str]) -> dict[str, Callable[[], Message]]:
    """One request for each method."""

    def session(cls: type[Message], **fields: object) -> Callable[[], Message]:
        return lambda: cls(session_id=session_id(), **fields)

    step = {"rows": [{"ids": [7]}]}
    generate = model_pb.GenerateRequest(**GENERATE)
    key = str(uuid.uuid4())
    return {
        "Encode": lambda: tokenizer_pb.EncodeRequest(items=[{"text": "Hi"}]),
        "EncodeStream": lambda: tokenizer_pb.EncodeStreamRequest(item={"text": "Hi"}),
        "Decode": lambda: tokenizer_pb.DecodeRequest(batch={"token_batch": ROWS}),
        "DecodeStream": lambda: tokenizer_pb.DecodeStreamRequest(ids=[5]),
        "Pad": lambda: tokenizer_pb.PadRequest(token_batch=ROWS),
        "ApplyChatTemplate": lambda: tokenizer_pb.ApplyChatTemplateRequest(
            conversations=[{"messages": [{"role": "user", "content": "Hi"}]}]
        ),
        "CountTokens": lambda: tokenizer_pb.CountTokensRequest(items=[{"text": "Hi"}]),
        "WatchVocabulary": tokenizer_pb.WatchVocabularyRequest,
        "AddTokens": lambda: vocabulary_admin_pb.AddTokensRequest(
            tokens=[NEW_TOKEN], idempotency_key=key
        ),
        "SetSpecialTokens": lambda: vocabulary_admin_pb.SetSpecialTokensRequest(
            special_tokens=[{"role": vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD, "token_id": 1}],
            idempotency_key=str(uuid.uuid4()),
        ),
        "Generate": lambda: generate,
        "GenerateStream": lambda: model_pb.GenerateStreamRequest(request=generate),
        "Score": lambda: model_pb.ScoreRequest(prompt=ragged([5, 6])),
        "ComputeLogits": lambda: model_pb.ComputeLogitsRequest(prompt=ragged([5, 6])),
        "OpenSession": lambda: session_pb.OpenSessionRequest(prompt=ragged([5, 6])),
        "Step": session(session_pb.StepRequest, **step),
        "StepStream": lambda: session_pb.StepStreamRequest(
            step=session_pb.StepRequest(session_id=session_id(), **step)
        ),
        "Truncate": session(session_pb.TruncateRequest, positions=[1]),
        "Fork": session(session_pb.ForkRequest),
        "SelectRows": session(session_pb.SelectRowsRequest, row_indices=[0]),
        "RebindSession": session(session_pb.RebindSessionRequest),
        "GetSession": session(session_pb.GetSessionRequest),
        "TouchSession": session(session_pb.TouchSessionRequest),
        "CloseSession": session(session_pb.CloseSessionRequest),
        "ValidateRequest": lambda: info_pb.ValidateRequestRequest(generate_request=generate),
        "Drain": admin_pb.DrainRequest,
    }


def test_every_response_of_every_method_names_one(services: Services):
    Tokenizer(services.tokenizer).add("<old>")
    with (
        services.client(timeout=30) as client,
        grpc.insecure_channel(services.tokenizer.address) as tokenizer,
        grpc.insecure_channel(services.model.address) as model,
    ):
        made = requests(lambda: client.model.open_session([[5, 6]]).session_id)
        channels = [(tokenizer, methods(TOKENIZER)), (model, methods(MODEL))]
        for channel, all_methods in channels:
            for method in all_methods:
                make = made.get(method.name, GetMessageClass(method.input_type))
                responses = call(channel, method, make())
                assert responses, full_name(method)
                if method.name == "ExportRevisions":  # which comes before ImportRevisions
                    archive = b"".join(response.data for response in responses)
                    made["ImportRevisions"] = partial(
                        vocabulary_admin_pb.ImportRevisionsRequest, data=archive
                    )
                if method.name in PART_OF_STREAM:
                    responses = [responses[PART_OF_STREAM[method.name]]]
                for response in responses:
                    named = list(references(response))
                    assert named, (full_name(method), response)
                    assert all(each.tokenizer_id and each.fingerprint for each in named)
                    assert any(each.revision >= 1 for each in named)
