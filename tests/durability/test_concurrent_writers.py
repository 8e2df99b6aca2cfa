"""Several replicas on one PostgreSQL, many writers, and processes that are killed."""

import dataclasses
import itertools
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import vocabulary_admin_service_pb2 as pb
from lockstep.v1 import vocabulary_pb2

from tests.correctness.sizes import sizes
from tests.durability.concurrent_history import ClientCall, problems
from tests.durability.replicas import Replica
from tests.tokenizer_factory import make_tokenizer_folder
from tokenizer_service.store import Store
from tokenizer_service.store.timestamps import to_us
from vocabulary import Reference, base_fingerprint

NUM_WRITERS = 8
CALL_TIMEOUT_S = 120.0


class Writers:
    """Eight clients that send calls to random replicas until each is answered."""

    def __init__(self, replicas: list[Replica], num_calls: int, seed: int) -> None:
        self._replicas = replicas
        self._requests = requests(num_calls, random.Random(seed))
        self._lock = threading.Lock()
        self.calls: list[ClientCall] = []
        self.stopped = False

    def run(self, number: int) -> None:
        """Works as one of the clients."""
        draw = random.Random(number)
        while (call := self._next()) is not None:
            self._until_answered(call, draw)
            if draw.random() < 0.2:  # a client that lost the answer asks for it again
                self._until_answered(call, draw)

    def _next(self) -> ClientCall | None:
        with self._lock:
            request = None if self.stopped else next(self._requests, None)
            if request is None:
                return None
            self.calls.append(ClientCall(request, time.monotonic()))
            return self.calls[-1]

    def _until_answered(self, call: ClientCall, draw: random.Random) -> None:
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while True:
            assert time.monotonic() < deadline, "a call was never answered"
            replica = draw.choice(self._replicas)
            if replica.is_running:
                if (reply := replica.add(call.request)) is not None:
                    break
                call.num_failed += 1
                if not call.replies:
                    call.failed_us = time.time_ns() // 1000
            time.sleep(draw.uniform(0.01, 0.1))
        if not call.replies:
            call.end_s = time.monotonic()
        call.replies.append(reply)


def requests(count: int, draw: random.Random) -> Iterator[pb.AddTokensRequest]:
    """Yields calls for one to three special tokens, a fifth of which were asked for before."""
    contents: list[str] = []
    for _ in range(count):
        wanted = []
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            if contents and draw.random() < 0.2:
                wanted.append(draw.choice(contents))
            else:
                contents.append(f"<token {len(contents)}>")
                wanted.append(contents[-1])
        yield pb.AddTokensRequest(
            tokens=[
                pb.TokenToAdd(token=vocabulary_pb2.AddedToken(content=content, special=True))
                for content in dict.fromkeys(wanted)
            ],
            idempotency_key=str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        )


def kill_in_turns(replicas: list[Replica], writers: Writers, progress: list[int]) -> int:
    """Kills a random replica whenever so many calls have begun. Returns how many it killed."""
    draw = random.Random(5)
    killed = 0
    for count in progress:
        while len(writers.calls) < count:
            if writers.stopped:
                return killed
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        victim = draw.choice(replicas)
        victim.kill()
        killed += 1
        victim.restart()
    return killed


@pytest.mark.slow
@pytest.mark.timeout(300)
@sizes("num_calls", 160, 2000)
def test_every_answer_is_explained_by_one_line_of_revisions(postgresql_url, tmp_path, num_calls):
    folder = make_tokenizer_folder(tmp_path / "tiny")
    flags = (f"--model={folder}", f"--store={postgresql_url}", "--log-level=warning")
    num_kills = num_calls // 40
    started = time.monotonic()
    with ExitStack() as stack:
        replicas = [Replica(tmp_path / f"replica{n}", *flags) for n in range(2)]
        for replica in replicas:
            stack.callback(replica.close)
            replica.start()
        writers = Writers(replicas, num_calls, seed=11)
        pool = stack.enter_context(ThreadPoolExecutor(NUM_WRITERS + 1))
        progress = [num_calls * (n + 1) // (num_kills + 1) for n in range(num_kills)]
        killing = pool.submit(kill_in_turns, replicas, writers, progress)
        working = [pool.submit(writers.run, number) for number in range(NUM_WRITERS)]
        try:
            for work in working:
                work.result()
            assert killing.result() == num_kills
        finally:
            writers.stopped = True
        elapsed_s = time.monotonic() - started
        base = Reference("tiny", 0, base_fingerprint((folder / "tokenizer.json").read_bytes()), 400)
        store = Store(postgresql_url, base, observe=lambda *_: None)
        stack.callback(store.close)
        log = store.revisions()
        assert problems(base, log, writers.calls) == []
        written = {
            stored.call.idempotency_key: to_us(stored.create_time)
            for stored in store.replies("", len(log), 10 * num_calls)
        }
        check_replicas_agree(replicas, log[-1].link.vocabulary)
    calls = writers.calls
    failed = sum(call.num_failed for call in calls)
    durable = sum(written[call.request.idempotency_key] < call.failed_us for call in calls)
    repeated = sum(len(call.replies) > 1 for call in calls)
    print(
        f"{len(calls)} calls made {len(log)} revisions in {elapsed_s:.0f} s; {num_kills} kills, "
        f"{failed} attempts without an answer, {durable} calls durable before any; "
        f"{repeated} calls answered more than once"
    )
    assert len(calls) == num_calls
    assert failed > 0
    assert repeated > num_calls / 10


def check_replicas_agree(replicas: list[Replica], newest: Reference) -> None:
    """Each serves the newest state, and the ids of the other."""
    text = tokenizer_pb.EncodeRequest(
        items=[tokenizer_pb.TextItem(text="".join(f"<token {n}>" for n in range(100)))],
        options=tokenizer_pb.EncodeOptions(parse_special_tokens=True),
        min_revision=newest.revision,
    )
    encoded = Counter(replica.tokenizer.Encode(text).SerializeToString() for replica in replicas)
    assert list(encoded.values()) == [len(replicas)]
    assert {replica.newest() for replica in replicas} == {newest}


def test_the_check_finds_what_must_not_happen(postgresql_url, tmp_path):
    """Each harm is done to calls and a log that are in order."""
    folder = make_tokenizer_folder(tmp_path / "tiny")
    replica = Replica(tmp_path / "replica", f"--model={folder}", f"--store={postgresql_url}")
    replica.start()
    writers = Writers([replica], 12, seed=3)
    writers.run(0)
    replica.close()
    calls = writers.calls
    base = Reference("tiny", 0, base_fingerprint((folder / "tokenizer.json").read_bytes()), 400)
    store = Store(postgresql_url, base, observe=lambda *_: None)
    log = store.revisions()
    store.close()
    assert problems(base, log, calls) == []
    assert problems(base, log[:-1], calls), "an acknowledged revision was lost"
    assert problems(base, log, calls[:-1]), "a revision was made that nobody asked for"

    def changed(number, **members):
        return [
            *calls[:number],
            dataclasses.replace(calls[number], **members),
            *calls[number + 1 :],
        ]

    last = len(calls) - 1
    assert problems(base, log, changed(last, replies=[b"", calls[last].replies[0]]))
    assert problems(base, log, changed(last, replies=calls[0].replies))
    assert problems(base, log, changed(0, start_s=calls[last].end_s + 1))
    for harm in itertools.islice(harmed_responses(calls[0].response), 2):
        assert problems(base, log, changed(0, replies=[harm.SerializeToString()]))


def harmed_responses(response: pb.AddTokensResponse) -> Iterator[pb.AddTokensResponse]:
    """Yields answers that are wrong in one way each."""
    harmed = pb.AddTokensResponse()
    harmed.CopyFrom(response)
    harmed.results[0].id += 1
    yield harmed
    harmed.CopyFrom(response)
    harmed.vocabulary.fingerprint = "0" * 64
    yield harmed
