"""A model service that cannot hear the tokenizer service for a while, and callers of both."""

import asyncio
import random
import signal
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest
from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import model_service_pb2, vocabulary_pb2

from lockstep_client import AsyncLockstep, DeadlineExceeded, Lockstep
from lockstep_client.exceptions import ConnectionFailed, LockstepError
from tests.integration.growing import Tokenizer, running_tokenizer, state
from tests.integration.holding_proxy import holding_proxy
from tests.integration.model_process import ModelProcess, model_process, ragged, refusal
from tests.services import running_process

CATCH_UP_S = 0.5
WAIT_S = 0.2
KNOWN_DOWN_S = 0.1
RECOVERY_S = 5.0
BUSY_RECOVERY_S = 20.0
# What is promised holds for every call on a quiet machine, and for most on a busy one.
MACHINES = pytest.mark.parametrize(
    "is_quiet", [False, pytest.param(True, marks=pytest.mark.full)], ids=["busy", "quiet"]
)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint, tmp_path_factory):
    with running_tokenizer(tiny_checkpoint, tmp_path_factory.mktemp("tokenizer")) as tokenizer:
        yield tokenizer


@pytest.fixture(scope="module")
def proxy(tokenizer):
    with holding_proxy(tokenizer.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def model(tiny_checkpoint, proxy, tmp_path_factory):
    flags = ["--dtype", "fp32", "--tokenizer-address", proxy.address]
    flags += ["--vocabulary-wait-s", str(WAIT_S)]
    with model_process(tiny_checkpoint, tmp_path_factory.mktemp("model"), *flags) as model:
        yield model


def grow(tokenizer: Tokenizer, count: int) -> list[vocabulary_pb2.VocabularyRef]:
    """Adds revisions and returns them all."""
    first = tokenizer.newest().revision
    return [tokenizer.add(f"<r{first + n}a>", f"<r{first + n}b>").vocabulary for n in range(count)]


def generate(model: ModelProcess, vocabulary: vocabulary_pb2.VocabularyRef, *ids: int):
    request = model_service_pb2.GenerateRequest(
        prompt=ragged([5, 6, *ids]),
        vocabulary=vocabulary,
        generation_config={"max_new_tokens": 2, "eos_token_ids": {}},
    )
    return model.model.Generate(request, timeout=30)


class Traffic:
    """Calls at random revisions with ids up to the last one of each, while a test goes on.

    Attributes:
        known: revisions that calls may name; the test adds to it.
        answered: number of calls that were.
        behind: number of calls that were told to come again.
        wrong: what else happened.
    """

    def __init__(self, model: ModelProcess, known: list[vocabulary_pb2.VocabularyRef]) -> None:
        self.known = known
        self.answered = self.behind = 0
        self.wrong: list[object] = []
        self._model = model
        self._ending = threading.Event()

    @contextmanager
    def running(self, num_threads: int = 3) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=(n,)) for n in range(num_threads)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def _call(self, number: int) -> None:
        choose = random.Random(number)
        while not self._ending.is_set():
            vocabulary = choose.choice(self.known)
            ids = [vocabulary.size - 1, choose.randrange(vocabulary.size)]
            try:
                response = generate(self._model, vocabulary, *ids)
                tokens = response.sequences[0].token_ids
                if response.vocabulary != vocabulary or not all(
                    t < vocabulary.size for t in tokens
                ):
                    self.wrong.append(response)
                self.answered += 1
            except grpc.RpcError as error:
                answer = refusal(error)
                if answer.reason != "VOCABULARY_BEHIND":
                    self.wrong.append(answer)
                self.behind += 1


@pytest.mark.parametrize("lag", [1, 7, 50])
def test_a_replica_that_lags_says_so_and_catches_up_at_once(tokenizer, proxy, model, lag):
    before = grow(tokenizer, 1)[0]
    generate_until(model, before, CATCH_UP_S + 5)
    session = model.sessions.OpenSession(
        session_pb.OpenSessionRequest(prompt=ragged([5, 6]), vocabulary=before)
    )
    traffic = Traffic(model, [before])
    with traffic.running():
        proxy.hold()
        missed = grow(tokenizer, lag)
        traffic.known += missed
        with pytest.raises(grpc.RpcError) as caught:
            generate(model, missed[-1])
        answer = refusal(caught.value)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "VOCABULARY_BEHIND")
        assert answer.retry
        assert answer.info.metadata["requestRevision"] == str(before.revision + lag)
        assert answer.info.metadata["serverRevision"] == str(before.revision)
        step = session_pb.StepRequest(session_id=session.session_id, rows=[{"ids": [7]}])
        assert model.sessions.Step(step).vocabulary == before
        assert generate(model, before).vocabulary == before
        deadline = time.monotonic() + 10
        while not (traffic.behind and traffic.answered):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        proxy.release()
        caught_up_s = generate_until(model, missed[-1], 10)
        time.sleep(0.3)
    assert not traffic.wrong
    assert caught_up_s <= CATCH_UP_S
    assert state(model).vocabulary == missed[-1]
    print(f"lag {lag}: caught up in {caught_up_s * 1000:.0f} ms, {traffic.answered} answered")


def generate_until(model: ModelProcess, vocabulary: vocabulary_pb2.VocabularyRef, limit_s: float):
    """Repeats a call until it is not behind any more; returns how long that took."""
    start = time.monotonic()
    while True:
        try:
            generate(model, vocabulary)
            return time.monotonic() - start
        except grpc.RpcError as error:
            late = time.monotonic() - start > limit_s
            if late or refusal(error).reason != "VOCABULARY_BEHIND":
                raise


def test_a_pause_long_enough_to_lose_the_connection_ends_as_quickly(tokenizer, proxy, model):
    before = tokenizer.newest()
    generate_until(model, before, 5)
    proxy.hold()
    missed = grow(tokenizer, 5)
    deadline = time.monotonic() + 30
    while state(model).follower_connected:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2)  # attempts to connect anew hang, too
    proxy.release()
    assert generate_until(model, missed[-1], 10) <= CATCH_UP_S


def test_an_id_of_a_later_revision_is_out_of_range_of_an_earlier_one(tokenizer, model):
    first, second = grow(tokenizer, 2)
    generate_until(model, second, 5)
    with pytest.raises(grpc.RpcError) as caught:
        generate(model, first, second.size - 1)
    assert refusal(caught.value).reason == "TOKEN_ID_OUT_OF_RANGE"


def test_another_chain_is_refused_with_both_references(tokenizer, model):
    here = grow(tokenizer, 1)[0]
    generate_until(model, here, 5)
    other = vocabulary_pb2.VocabularyRef(
        tokenizer_id="other", revision=here.revision, fingerprint="ab" * 32, size=here.size
    )
    with pytest.raises(grpc.RpcError) as caught:
        generate(model, other)
    answer = refusal(caught.value)
    assert answer.code is grpc.StatusCode.FAILED_PRECONDITION
    assert answer.reason == "VOCABULARY_MISMATCH"
    assert not answer.retry
    said = answer.info.metadata
    assert (said["requestTokenizerId"], said["requestFingerprint"]) == ("other", "ab" * 32)
    assert (said["serverTokenizerId"], said["serverFingerprint"]) == (
        here.tokenizer_id,
        here.fingerprint,
    )
    assert said["requestRevision"] == said["serverRevision"] == str(here.revision)


# --- The tokenizer service is gone ----------------------------------------------------------------


class Outage:
    """A tokenizer service behind a proxy, on a port that a new one can take."""

    def __init__(self, checkpoint, folder, proxy, process) -> None:
        self.checkpoint, self.folder, self.proxy, self.process = checkpoint, folder, proxy, process

    def begin(self, kind: str) -> None:
        if kind == "black hole":
            self.proxy.hold()
        else:
            self.process.process.send_signal(getattr(signal, kind))
            if kind == "SIGKILL":
                self.process.process.wait(10)
                self.proxy.cut()

    @contextmanager
    def ended(self, kind: str) -> Iterator[None]:
        if kind == "black hole":
            self.proxy.release()
        elif kind == "SIGSTOP":
            self.process.process.send_signal(signal.SIGCONT)
        else:
            port = self.process.address.rsplit(":", 1)[1]
            flags = [f"--model={self.checkpoint}", f"--store=sqlite:///{self.folder / 'store.db'}"]
            again = self.folder / "again"
            again.mkdir()
            with running_process("tokenizer_service", *flags, f"--port={port}", folder=again):
                yield
            return
        yield


@MACHINES
@pytest.mark.parametrize("kind", ["SIGSTOP", "SIGKILL", "black hole"])
async def test_ids_are_served_and_texts_fail_at_once_while_the_tokenizer_service_is_gone(
    tiny_checkpoint, tmp_path, kind, is_quiet
):
    with (
        running_tokenizer(tiny_checkpoint, tmp_path) as tokenizer,
        holding_proxy(tokenizer.address) as proxy,
        model_process(tiny_checkpoint, tmp_path, "--tokenizer-address", proxy.address) as model,
        Lockstep(proxy.address, model.service.address, timeout=1.0) as client,
    ):
        newest = tokenizer.add("<known>").vocabulary
        generate_until(model, newest, 5)
        outage = Outage(tiny_checkpoint, tmp_path, proxy, tokenizer.process)
        assert client.generate("Hi", max_new_tokens=1).text is not None
        asynchronous = AsyncLockstep(proxy.address, model.service.address, timeout=1.0)
        async with asynchronous:
            assert await asynchronous.tokenizer.encode("Hi")
            traffic = Traffic(model, [newest])
            with traffic.running(2):
                outage.begin(kind)
                with pytest.raises((ConnectionFailed, DeadlineExceeded)):
                    client.tokenizer.encode("Hi")
                with pytest.raises((ConnectionFailed, DeadlineExceeded)):
                    await asynchronous.tokenizer.encode("Hi")
                await asyncio.sleep(2.0)  # it is known by now
                took = []
                for _ in range(20):
                    start = time.monotonic()
                    with pytest.raises(ConnectionFailed) as caught:
                        client.generate("Hi", max_new_tokens=1)
                    with pytest.raises(ConnectionFailed) as caught_too:
                        await asynchronous.generate("Hi", max_new_tokens=1)
                    took.append((time.monotonic() - start) / 2)
                    assert caught.value.code is caught_too.value.code is grpc.StatusCode.UNAVAILABLE
                    await asyncio.sleep(0.1)
                assert client.model.generate([[5, 6]], max_new_tokens=2).sequences
            assert not traffic.wrong
            assert (traffic.behind, traffic.answered > 20) == (0, True)
            slowest = max(took) if is_quiet else statistics.median(took)
            assert slowest <= KNOWN_DOWN_S
            start = time.monotonic()
            with outage.ended(kind):
                if kind == "SIGKILL":
                    start = time.monotonic()  # from when it listens
                await recovered(lambda: asynchronous.tokenizer.encode("Hi"))
                await recovered(lambda: asyncio.to_thread(client.generate, "Hi", max_new_tokens=1))
                recovery_s = time.monotonic() - start
                assert recovery_s <= (RECOVERY_S if is_quiet else BUSY_RECOVERY_S)
                wait_until_followed(model, start + BUSY_RECOVERY_S)
    print(
        f"{kind}: {traffic.answered} calls with ids, none failed; texts failed in "
        f"{slowest * 1000:.1f} ms and were back after {recovery_s:.2f} s"
    )


async def recovered(call: Callable[[], Awaitable[object]]) -> None:
    """Repeats a call until it succeeds."""
    deadline = time.monotonic() + BUSY_RECOVERY_S
    while True:
        try:
            await call()
            return
        except LockstepError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


def wait_until_followed(model: ModelProcess, deadline: float) -> None:
    while not state(model).follower_connected:
        assert time.monotonic() < deadline, model.log()
        time.sleep(0.05)
