"""Messages that nobody should send, to every method of both services, beside streams that go on.

One of four is broken bytes; the others are good requests with one field, or three, at the edge of
its type or with absurdly much in it, drawn from the descriptors of the schema.
"""

import collections
import math
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
import psutil
import pytest
from google.protobuf import descriptor_pool
from lockstep.v1 import (
    logits_session_service_pb2,
    logits_session_service_pb2_grpc,
    model_admin_service_pb2,
    model_admin_service_pb2_grpc,
    model_info_service_pb2,
    model_service_pb2,
    tokenizer_service_pb2,
    tokens_pb2,
    vocabulary_admin_service_pb2,
)

from tests.checkpoint_factory import make_checkpoint
from tests.correctness.sizes import sizes
from tests.faults.watch import canaries
from tests.random_messages import (
    MOST_BYTES,
    corrupted,
    items_in_bytes,
    ordinary,
    places,
    with_hostile_field,
    wrapped,
)
from tests.services import running_services

TOKENIZER_SERVICES = ("TokenizerService", "VocabularyAdminService")
MODEL_SERVICES = (
    "ModelService",
    "LogitsSessionService",
    "ModelInfoService",
    "ModelAdminService",
)
METHODS = [
    method
    for name in (*TOKENIZER_SERVICES, *MODEL_SERVICES)
    for method in descriptor_pool.Default().FindServiceByName(f"lockstep.v1.{name}").methods
    if method.name != "Drain"  # it does what it says, and the streams beside it would be refused
]
PLACES = {method.full_name: list(places(method.input_type)) for method in METHODS}

BUGS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
TIMEOUT_S = 20.0
WATCH_S = 0.2
NUM_SENDERS = 4
MEBIBYTE = 2**20

PROMPT = tokens_pb2.PromptBatch(
    token_batch=tokens_pb2.TokenBatch(sequences=[tokens_pb2.TokenSequence(ids=[5, 6, 7])])
)
ROWS = tokens_pb2.TokenBatch(sequences=[tokens_pb2.TokenSequence(ids=[5, 6, 7])])
ITEMS = [tokenizer_service_pb2.TextItem(text="the capital")]


def good_request(rng, method, session_id):
    """Returns a request that is served, as far as a method takes any field."""
    generate = model_service_pb2.GenerateRequest(
        prompt=PROMPT, generation_config={"max_new_tokens": 2, "do_sample": rng.random() < 0.5}
    )
    step = logits_session_service_pb2.StepRequest(session_id=session_id, rows=[{"ids": [5]}])
    requests = [
        generate,
        model_service_pb2.GenerateStreamRequest(request=generate),
        model_info_service_pb2.ValidateRequestRequest(generate_request=generate),
        model_service_pb2.ScoreRequest(prompt=PROMPT),
        model_service_pb2.ComputeLogitsRequest(prompt=PROMPT),
        logits_session_service_pb2.OpenSessionRequest(
            prompt=PROMPT, max_length=8, ttl={"seconds": 1}
        ),
        step,
        logits_session_service_pb2.StepStreamRequest(step=step),
        tokenizer_service_pb2.EncodeRequest(items=ITEMS),
        tokenizer_service_pb2.EncodeStreamRequest(item=ITEMS[0]),
        tokenizer_service_pb2.CountTokensRequest(items=ITEMS),
        tokenizer_service_pb2.DecodeRequest(batch=PROMPT),
        tokenizer_service_pb2.DecodeStreamRequest(ids=[5, 6]),
        tokenizer_service_pb2.PadRequest(token_batch=ROWS),
        tokenizer_service_pb2.ApplyChatTemplateRequest(
            conversations=[{"messages": [{"role": "user", "content": "hello"}]}]
        ),
        vocabulary_admin_service_pb2.AddTokensRequest(
            tokens=[{"token": {"content": f"<{rng.randrange(1000)}>", "special": True}}],
            idempotency_key=f"{rng.randrange(10**8):08}-0000-4000-8000-000000000000",
            dry_run=rng.random() < 0.5,
        ),
    ]
    fitting = (request for request in requests if method.input_type == request.DESCRIPTOR)
    return next(fitting, None) or with_session(ordinary(rng, method.input_type), session_id)


def with_session(request, session_id):
    if "session_id" in request.DESCRIPTOR.fields_by_name:
        request.session_id = session_id
    return request


def hostile_message(rng, method, session_id):
    """Draws the bytes of one message."""
    good = good_request(rng, method, session_id)
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.choice([1, 7, 100, 10_000]))
    if kind < 0.25:
        return corrupted(rng, good.SerializeToString())
    data = good.SerializeToString()
    for _ in range(3 if kind > 0.85 else 1):
        if not PLACES[method.full_name]:
            return data
        place = rng.choice(PLACES[method.full_name])
        data = data + with_hostile_field(rng, type(good)(), place)
    return data[:MOST_BYTES]


@dataclass
class Sender:
    """Sends messages, and keeps account of the answers."""

    tokenizer: grpc.Channel
    model: grpc.Channel
    codes: collections.Counter = field(default_factory=collections.Counter)
    bugs: list = field(default_factory=list)

    def send(self, seed, session_id):
        """Sends the message of a seed, or a few where the method takes a stream."""
        rng = random.Random(seed)
        method = rng.choice(METHODS)
        count = rng.randint(1, 3) if method.client_streaming else 1
        messages = [hostile_message(rng, method, session_id) for _ in range(count)]
        code, text = self.call(method, messages)
        self.codes[code.name] += 1
        if code in BUGS:
            self.bugs.append((seed, method.full_name, code.name, text))

    def call(self, method, messages):
        service = method.containing_service
        channel = self.tokenizer if service.name in TOKENIZER_SERVICES else self.model
        path = f"/{service.full_name}/{method.name}"
        timeout = WATCH_S if method.name == "WatchVocabulary" else TIMEOUT_S
        try:
            match method.client_streaming, method.server_streaming:
                case False, False:
                    channel.unary_unary(path)(messages[0], timeout=timeout)
                case True, False:
                    channel.stream_unary(path)(iter(messages), timeout=timeout)
                case False, True:
                    collections.deque(channel.unary_stream(path)(messages[0], timeout=timeout), 0)
                case True, True:
                    answers = channel.stream_stream(path)(iter(messages), timeout=timeout)
                    collections.deque(answers, 0)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""


def channel_to(address):
    sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return grpc.insecure_channel(address, [*sizes, ("grpc.use_local_subchannel_pool", 1)])


def memory_bytes(services):
    """Returns what both services, their engine and workers hold."""
    total = 0
    for service in (services.tokenizer, services.model):
        process = psutil.Process(service.process.pid)
        total += sum(each.memory_info().rss for each in [process, *process.children(True)])
    return total


def give_back(channel):
    """Closes every session, and drops what is kept for reuse."""
    sessions = logits_session_service_pb2_grpc.LogitsSessionServiceStub(channel)
    listed = logits_session_service_pb2.ListSessionsRequest(page_size=1000)
    for session in sessions.ListSessions(listed).sessions:
        closing = logits_session_service_pb2.CloseSessionRequest(session_id=session.session_id)
        with suppress(grpc.RpcError):  # it may have ended, or be in use
            sessions.CloseSession(closing)
    admin = model_admin_service_pb2_grpc.ModelAdminServiceStub(channel)
    admin.FlushPrefixCache(model_admin_service_pb2.FlushPrefixCacheRequest())


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]


def send_all(sender, seeds):
    """Sends the messages of seeds, a few at a time."""
    numbers = iter(seeds)
    lock = threading.Lock()
    opening = logits_session_service_pb2.OpenSessionRequest(
        prompt=PROMPT, ttl={"seconds": 3600}, max_length=128
    )
    stub = logits_session_service_pb2_grpc.LogitsSessionServiceStub(sender.model)

    def work():
        for sent in range(10**9):
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            if sent % 100 == 0:  # the one before may have been closed
                give_back(sender.model)
                session_id = stub.OpenSession(opening).session_id
            sender.send(number, session_id)

    threads = [threading.Thread(target=work) for _ in range(NUM_SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.slow
@sizes("num_messages", ci=600, full=100_000)
def test_no_message_harms_a_service_or_another_caller(tmp_path, num_messages):
    checkpoint = make_checkpoint(tmp_path / "tiny", "llama")
    with (
        # Compiling would take a core and memory of its own.
        running_services(checkpoint, tmp_path, model_flags=("--decode-graphs=off",)) as services,
        channel_to(services.tokenizer.address) as tokenizer,
        channel_to(services.model.address) as model,
    ):
        sender = Sender(tokenizer, model)
        send_all(sender, range(-num_messages // 10, 0))  # until libraries have filled their caches
        give_back(model)
        before = memory_bytes(services)
        with canaries(services) as outcome:
            send_all(sender, range(num_messages))
        give_back(model)
        time.sleep(2)
        growth = memory_bytes(services) - before
        waits = {name: percentile(outcome["waits_s"][name], 0.99) for name in outcome["waits_s"]}
        print(sender.codes, outcome["runs"], waits, growth // MEBIBYTE)
        assert not sender.bugs
        assert services.model.process.poll() is None
        assert services.tokenizer.process.poll() is None
        assert outcome["failures"] == []
        assert outcome["runs"] > 0
        assert outcome["wrong"] == 0
        log = services.model.log.read_text() + services.tokenizer.log.read_text()
        assert "Traceback" not in log
        if num_messages == 100_000:
            assert max(waits.values()) < 0.05
            assert growth < 50 * MEBIBYTE


@pytest.mark.slow
def test_absurdly_many_items_of_any_field_hold_up_nobody(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "tiny", "llama")
    with (
        running_services(checkpoint, tmp_path, model_flags=("--decode-graphs=off",)) as services,
        channel_to(services.tokenizer.address) as tokenizer,
        channel_to(services.model.address) as model,
    ):
        sender = Sender(tokenizer, model)
        with canaries(services) as outcome:
            for method in METHODS:
                for place in PLACES[method.full_name]:
                    if place[-1].is_repeated:
                        good = good_request(random.Random(1), method, "none")
                        items = items_in_bytes(place[-1], MOST_BYTES // 2)
                        message = good.SerializeToString() + wrapped(place, items)
                        code, text = sender.call(method, [message[: MOST_BYTES + 1000]])
                        assert code is grpc.StatusCode.INVALID_ARGUMENT, (method.name, text)
        assert outcome["wrong"] == 0
        assert outcome["failures"] == []
        assert max(map(max, outcome["waits_s"].values())) < 1.5  # milliseconds on a quiet machine
