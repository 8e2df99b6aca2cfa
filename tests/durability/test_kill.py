"""The real service is killed with SIGKILL while callers add tokens."""

import random
import threading
import time
from contextlib import suppress

import grpc
import pytest

from tests.correctness.sizes import sizes
from tests.durability.ledger import Ledger
from tests.durability.recorder import EVERY, SYNCS, Action, Operation, Recorder
from tests.integration.tokenizer_process import running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder

WRITERS = 4
KILLS_PER_STORE = 20
# From the first call of a round: the time of about six calls.
LATEST_KILL_S = 0.08
FLAGS = ("--template-workers=1", "--log-level=error")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer_folder(tmp_path_factory.mktemp("tokenizer") / "tiny")


@pytest.mark.timeout(600)
@sizes("kills", 12, 200)
def test_a_kill_at_a_random_moment_loses_and_tears_nothing(tokenizer, tmp_path, kills):
    draw = random.Random(kills)
    told = written = 0
    for start in range(0, kills, KILLS_PER_STORE):
        ledger = Ledger(base_size=400)
        for _ in range(min(KILLS_PER_STORE, kills - start)):
            with running_tokenizer(tokenizer, tmp_path / str(start), *FLAGS) as stubs:
                written += ledger.check(stubs)
                kill_while_writing(stubs, ledger, draw.uniform(0, LATEST_KILL_S))
        with running_tokenizer(tokenizer, tmp_path / str(start), *FLAGS) as stubs:
            written += ledger.check(stubs)
        told += ledger.num_told
    print(f"{kills} kills, {told} calls, {written} written and not acknowledged")
    assert told > kills


def add_until_it_fails(stubs, ledger):
    while True:
        ledger.add(stubs)


def kill_while_writing(stubs, ledger, delay_s):
    """Kills the service while several threads add tokens as fast as they can."""
    begun = threading.Barrier(WRITERS + 1)

    def write():
        begun.wait()
        with suppress(grpc.RpcError):
            add_until_it_fails(stubs, ledger)

    threads = [threading.Thread(target=write) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(delay_s)
    stubs.service.process.kill()
    for thread in threads:
        thread.join()


@pytest.mark.timeout(600)
@sizes("kinds", SYNCS, EVERY)
def test_a_kill_at_any_operation_of_a_change_loses_and_tears_nothing(
    tokenizer, tmp_path, library, kinds
):
    folder = tmp_path / "store"
    folder.mkdir()
    recorder = Recorder(library, folder, tmp_path)
    ledger = Ledger(base_size=400)

    def running():
        return running_tokenizer(tokenizer, folder, *FLAGS, environment=recorder.environment)

    with running() as stubs:
        ledger.add(stubs)
        recorder.act(Action.NOTHING, kinds=kinds)
        ledger.add(stubs)
        operations = recorder.seen
    assert operations > 3
    # Before each; in the middle of each write; and after the last, when all is on the disk.
    points = [(Action.KILL_BEFORE, number, kinds) for number in range(operations)]
    if Operation.WRITE in kinds:
        halves = (Operation.WRITE,)
        points += [(Action.KILL_HALFWAY, number, halves) for number in range(0, operations, 2)]
    points.append((Action.KILL_AFTER, operations - 1, kinds))
    written = []
    for action, number, which in points:
        with running() as stubs:
            ledger.check(stubs)
            ledger.add(stubs)
            recorder.act(action, number, kinds=which)
            with pytest.raises(grpc.RpcError):
                add_until_it_fails(stubs, ledger)
        recorder.act(Action.NOTHING)
        with running() as stubs:
            written.append(ledger.check(stubs))
    print(f"{len(points)} points, written at {[i for i, one in enumerate(written) if one]}")
    assert written[0] == 0
    assert written[-1] == 1
