import asyncio
import random
from collections import Counter

import grpc
import pytest
from google.protobuf import wrappers_pb2
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services

from rpc import errors
from rpc.identity.roles import POLICY, Role
from tests.integration.rpc_probe import SERVICE, Failure, failure, running

ENCODE = f"/{SERVICE}/Encode"


class Echo(services.TokenizerServiceServicer):
    """Answers, in both styles of streaming; everything else is not written."""

    async def Encode(self, request, context):
        return messages.EncodeResponse()

    async def GetVocabulary(self, request, context):
        yield messages.GetVocabularyResponse()

    async def EncodeStream(self, request_iterator, context):
        async for request in request_iterator:
            yield messages.EncodeStreamResponse(item_id=request.item_id)

    async def DecodeStream(self, request_iterator, context):
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(messages.DecodeStreamResponse(sequence_id=request.sequence_id))


@pytest.fixture
async def channel():
    async with running(Echo()) as (_, channel):
        yield channel


@pytest.fixture
def stub(channel):
    return services.TokenizerServiceStub(channel)


async def test_a_call_that_succeeds_says_nothing_of_retries(stub):
    call = stub.Encode(messages.EncodeRequest())
    assert await call == messages.EncodeResponse()
    assert list(await call.trailing_metadata()) == []


@pytest.mark.parametrize("method", ["EncodeStream", "DecodeStream"])
async def test_a_bidirectional_stream_works_in_both_styles(stub, method):
    kind = {
        "EncodeStream": messages.EncodeStreamRequest,
        "DecodeStream": messages.DecodeStreamRequest,
    }
    call = getattr(stub, method)(iter([kind[method]()] * 3))
    assert len([response async for response in call]) == 3


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("Encode", "unary_unary"),
        ("GetVocabulary", "unary_stream"),
        ("EncodeStream", "stream_stream"),
        ("DecodeStream", "stream_stream"),
    ],
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(channel, method, kind):
    junk = b"\xff\xfftop-secret"
    call = getattr(channel, kind)(f"/{SERVICE}/{method}")
    answer = await failure(call(iter([junk]) if kind == "stream_stream" else junk))
    assert (answer.code, answer.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MALFORMED_MESSAGE",
    )
    assert answer.metadata == {"method": f"{SERVICE}/{method}"}
    assert answer.message == "The request is not a message of this method."


async def test_random_bytes_never_make_an_internal_or_unknown_error(channel):
    generator = random.Random(7)
    call = channel.unary_unary(ENCODE)
    reasons = Counter()
    for _ in range(300):
        try:
            await call(generator.randbytes(generator.randrange(64)))
        except grpc.aio.AioRpcError as error:
            reasons[Failure(error).reason] += 1
    assert set(reasons) == {"MALFORMED_MESSAGE"}
    assert reasons.total() > 200


@pytest.mark.parametrize(
    ("method", "kind"), [("Encode", "unary_unary"), ("EncodeStream", "stream_stream")]
)
async def test_a_message_of_five_megabytes_is_refused_with_size_and_limit(channel, method, kind):
    large = bytes(5_000_000)
    call = getattr(channel, kind)(f"/{SERVICE}/{method}")
    answer = await failure(call(iter([large]) if kind == "stream_stream" else large))
    assert (answer.code, answer.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "MESSAGE_TOO_LARGE",
    )
    assert answer.metadata == {"messageBytes": "5000000", "limitBytes": "4194304"}
    assert answer.retry is None
    assert answer.pushback_ms == "-1"


async def test_a_method_that_is_not_written_yet_is_unimplemented_with_details(stub):
    answer = await failure(stub.Pad(messages.PadRequest()))
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert answer.metadata == {"feature": f"{SERVICE}/Pad", "services": ""}
    answer = await failure(stub.WatchVocabulary(messages.WatchVocabularyRequest()))
    assert answer.metadata["feature"] == f"{SERVICE}/WatchVocabulary"


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_a_method_that_does_not_exist_is_unimplemented_with_details(channel, kind):
    call = getattr(channel, kind)("/lockstep.v1.TokenizerService/../../etc/passwd")
    answer = await failure(call(iter([b"x"]) if kind.startswith("stream") else b"x"))
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert "passwd" not in str(answer.trailing)
    assert answer.metadata["services"] == SERVICE


async def test_a_response_beyond_the_limit_is_refused_with_size_and_limit():
    class Large(services.TokenizerServiceServicer):
        async def GetTokenizerArtifact(self, request, context):
            yield messages.GetTokenizerArtifactResponse(data=bytes(2000))

        async def Decode(self, request, context):
            return messages.DecodeResponse(texts=[messages.DecodedText(text="x" * 2000)])

    async with running(Large(), max_response_bytes=1024) as (_, channel):
        stub = services.TokenizerServiceStub(channel)
        for call in (
            stub.GetTokenizerArtifact(messages.GetTokenizerArtifactRequest()),
            stub.Decode(messages.DecodeRequest()),
        ):
            answer = await failure(call)
            assert answer.reason == "RESPONSE_TOO_LARGE"
            assert answer.metadata["limitBytes"] == "1024"
            assert answer.pushback_ms == "-1"


SERVICE_ERRORS = [
    (errors.Overloaded("sequences", 8, retry_delay_s=0.25), "RESOURCE_EXHAUSTED", "250"),
    (errors.EngineLost(), "UNAVAILABLE", "2000"),
    (errors.SessionBusy("s"), "ABORTED", "100"),
    (errors.KVCacheExceeded(kv_tokens=2, limit_tokens=1), "RESOURCE_EXHAUSTED", "-1"),
    (errors.SessionNotFound("s"), "NOT_FOUND", None),
    (errors.InvalidField("top_k", "must be at least 1"), "INVALID_ARGUMENT", None),
]

BUGS = [
    ValueError("top-secret"),
    KeyError("top-secret"),
    NotImplementedError("top-secret: a library's, not the base class's"),
    asyncio.CancelledError("top-secret"),
    TimeoutError("top-secret"),
    StopAsyncIteration("top-secret"),
    BaseExceptionGroup("top-secret", [ValueError("top-secret"), asyncio.CancelledError()]),
]


def handlers_that_raise(error):
    """Returns a method of each kind and style, failing after what it may send first."""

    async def unary(request, context):
        raise error

    async def generate(request, context):
        yield wrappers_pb2.BytesValue(value=b"first")
        raise error

    async def write(request, context):
        await context.write(wrappers_pb2.BytesValue(value=b"first"))
        raise error

    codec = {
        "request_deserializer": wrappers_pb2.BytesValue.FromString,
        "response_serializer": wrappers_pb2.BytesValue.SerializeToString,
    }
    return {
        "unary_unary": grpc.unary_unary_rpc_method_handler(unary, **codec),
        "stream_unary": grpc.stream_unary_rpc_method_handler(unary, **codec),
        "unary_stream": grpc.unary_stream_rpc_method_handler(generate, **codec),
        "stream_stream": grpc.stream_stream_rpc_method_handler(generate, **codec),
        "unary_stream.write": grpc.unary_stream_rpc_method_handler(write, **codec),
        "stream_stream.write": grpc.stream_stream_rpc_method_handler(write, **codec),
    }


@pytest.fixture(autouse=True)
def probe_is_in_the_table(monkeypatch):
    for name in handlers_that_raise(None):
        monkeypatch.setitem(POLICY, f"/lockstep.test.Probe/{name}", Role.INFERENCE)


async def answers_of_every_kind(error):
    """Yields what a caller of each kind of method sees of the error."""
    methods = handlers_that_raise(error)
    probe = grpc.method_handlers_generic_handler("lockstep.test.Probe", methods)

    class Probe(services.TokenizerServiceServicer):
        pass

    async with running(Probe()) as (server, channel):
        server.grpc.add_generic_rpc_handlers((probe,))
        for name in methods:
            kind = name.partition(".")[0]
            call = getattr(channel, kind)(f"/lockstep.test.Probe/{name}")
            async with asyncio.timeout(5):
                yield await failure(call(iter([b""]) if kind.startswith("stream") else b""))


@pytest.mark.parametrize(
    ("error", "code", "pushback_ms"), SERVICE_ERRORS, ids=lambda value: type(value).__name__
)
async def test_every_kind_of_method_answers_a_service_error(error, code, pushback_ms):
    async for answer in answers_of_every_kind(error):
        assert answer.code is grpc.StatusCode[code]
        assert answer.metadata == error.metadata
        assert answer.pushback_ms == pushback_ms
        assert (answer.retry is not None) == (error.retry_delay_s is not None)


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
async def test_every_kind_of_method_hides_what_else_it_raises(error):
    async for answer in answers_of_every_kind(error):
        assert (answer.code, answer.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert len(answer.metadata["requestId"]) == 32
        assert "top-secret" not in str(answer.trailing) + answer.message
        assert answer.pushback_ms is None


async def test_an_error_out_of_a_task_group_arrives_as_itself():
    group = ExceptionGroup("two", [ValueError("x"), ExceptionGroup("one", [errors.EngineLost()])])
    async for answer in answers_of_every_kind(group):
        assert answer.reason == "ENGINE_LOST"


async def test_a_response_that_cannot_be_encoded_is_an_internal_error():
    class Wrong(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            return None

        async def GetVocabulary(self, request, context):
            yield "top-secret"

    async with running(Wrong()) as (_, channel):
        stub = services.TokenizerServiceStub(channel)
        for call in (
            stub.Encode(messages.EncodeRequest()),
            stub.GetVocabulary(messages.GetVocabularyRequest()),
        ):
            answer = await failure(call)
            assert answer.reason == "INTERNAL"
            assert "top-secret" not in str(answer.trailing) + answer.message


async def test_the_id_of_an_internal_error_is_the_callers_own():
    class Broken(services.TokenizerServiceServicer):
        async def Encode(self, request, context):
            raise ZeroDivisionError

    async with running(Broken()) as (_, channel):
        call = services.TokenizerServiceStub(channel).Encode
        metadata = (("x-request-id", "trace/42"),)
        answer = await failure(call(messages.EncodeRequest(), metadata=metadata))
    assert answer.metadata == {"requestId": "trace/42"}
