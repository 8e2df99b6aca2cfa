"""The largest message that each method takes, and how long nobody else gets a turn meanwhile."""

import asyncio
import random
import time
import uuid

import grpc
import pytest
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2
from lockstep.v1 import vocabulary_admin_service_pb2 as admin

from tests.correctness.sizes import sizes
from tests.integration import watched_service
from tests.integration.tokenizer_process import TokenizerStubs
from tests.services import running_process
from tests.tokenizer_factory import make_tokenizer_folder

MOST_BYTES = 4 * 2**20 - 2000
TEXT_BYTES = 256 * 2**10
EVERYTHING = pb.EncodeOptions(
    offset_unit=pb.OFFSET_UNIT_UTF16,
    return_special_tokens_mask=True,
    return_word_ids=True,
    return_tokens=True,
    return_token_bytes=True,
    return_token_type_ids=True,
    padding=pb.PaddingOptions(strategy=pb.PADDING_STRATEGY_LONGEST),
)
PROSE = "The capital of France is Paris, and the capital of Italy is Rome. "


def prose(num_bytes):
    return (PROSE * (num_bytes // len(PROSE) + 1))[:num_bytes]


def encoding(kind, count, num_bytes, **fields):
    return kind(items=[pb.TextItem(text=prose(num_bytes))] * count, **fields)


def rows(count, length):
    ids = [random.Random(1).randrange(3, 400) for _ in range(length)]
    return tokens_pb2.TokenBatch(sequences=[tokens_pb2.TokenSequence(ids=ids)] * count)


def chat(num_bytes, num_messages, num_conversations=1):
    content = prose(num_bytes // (num_messages * num_conversations) - 40)
    messages = [{"role": "user", "content": content}] * num_messages
    return pb.ApplyChatTemplateRequest(conversations=[{"messages": messages}] * num_conversations)


def additions(count, **fields):
    tokens = [{"token": {"content": f"<{i}{'x' * 40}>", "special": True}} for i in range(count)]
    return admin.AddTokensRequest(tokens=tokens, idempotency_key=str(uuid.uuid4()), **fields)


# The calls by name, each a method and its message, which is as much smaller than the largest.
CALLS = {
    "a text": ("Encode", lambda n: encoding(pb.EncodeRequest, 1, TEXT_BYTES // n)),
    "texts": ("Encode", lambda n: encoding(pb.EncodeRequest, 15, TEXT_BYTES // n)),
    "many texts": ("Encode", lambda n: encoding(pb.EncodeRequest, 64, MOST_BYTES // 65 // n)),
    "everything about a text": (
        "Encode",
        lambda n: encoding(pb.EncodeRequest, 1, TEXT_BYTES // n, options=EVERYTHING),
    ),
    "counts": ("CountTokens", lambda n: encoding(pb.CountTokensRequest, 15, TEXT_BYTES // n)),
    "long rows": (
        "Decode",
        lambda n: pb.DecodeRequest(batch={"token_batch": rows(2, 950_000 // n)}, return_bytes=True),
    ),
    "many rows": (
        "Decode",
        lambda n: pb.DecodeRequest(batch={"token_batch": rows(64, 30_000 // n)}),
    ),
    "padding": ("Pad", lambda n: pb.PadRequest(token_batch=rows(1, 2**18 // n))),
    "padding of rows": ("Pad", lambda n: pb.PadRequest(token_batch=rows(64, 2**12 // n))),
    "a long chat": ("ApplyChatTemplate", lambda n: chat(MOST_BYTES // n, 4096 // n)),
    "a chat of long messages": ("ApplyChatTemplate", lambda n: chat(MOST_BYTES // n, 16)),
    "many chats": ("ApplyChatTemplate", lambda n: chat(MOST_BYTES // n, 64 // n, 64)),
    "ids": ("ConvertTokens", lambda n: pb.ConvertTokensRequest(ids=[300] * (2**16 // n))),
    "tokens": ("ConvertTokens", lambda n: pb.ConvertTokensRequest(tokens=["a"] * (2**14 // n))),
    "additions": ("AddTokens", lambda n: additions(64 // n)),
    "a dry run": (
        "AddTokens",
        lambda n: additions(64 // n, dry_run=True, texts=[prose(4096)] * (64 // n)),
    ),
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    tokenizer = make_tokenizer_folder(folder / "tiny")
    file = folder / "pieces"
    with (
        running_process(
            "tests.integration.watched_service",
            f"--model={tokenizer}",
            "--store=sqlite://",
            folder=folder,
            environment=watched_service.environment("tokenizer_service", file),
        ) as service,
        grpc.insecure_channel(
            service.address, [("grpc.max_receive_message_length", -1)]
        ) as channel,
    ):
        stubs = TokenizerStubs(service, channel)
        stubs.wait_until_ready()
        yield stubs, file


@pytest.mark.slow
@sizes("divisor", ci=16, full=1)
def test_a_large_message_leaves_the_service_to_others_within_moments(watched, divisor):
    stubs, file = watched
    longest, begin = {}, file.stat().st_size
    for name, (method, message) in CALLS.items():
        start = file.stat().st_size
        request = message(divisor)
        assert request.ByteSize() <= MOST_BYTES + 2000
        stub = stubs.admin if method == "AddTokens" else stubs.tokenizer
        getattr(stub, method)(request, timeout=300)
        # A piece of the loop is written down before the next call is taken.
        stubs.tokenizer.GetTokenizerInfo(pb.GetTokenizerInfoRequest(), timeout=300)
        longest[method, name] = watched_service.longest_s(file, start)
        print(method, name, longest[method, name])
    whole = watched_service.longest_s(file, begin)  # with what was written down late
    assert whole["loop"] < 0.05
    assert whole["interpreter"] < 0.15


def test_a_callback_that_holds_the_loop_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(asyncio.events.Handle, "_run", asyncio.events.Handle._run)
    watched_service._watch_loop(tmp_path / "pieces")

    async def hold():
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass

    asyncio.run(hold())
    assert watched_service.longest_s(tmp_path / "pieces")["loop"] >= 0.03
