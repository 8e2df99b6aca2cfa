"""The power fails after every write and every sync of a real store.

What is promised: every acknowledged call is there, at most the one in flight besides,
and each as a whole. What weaker settings of SQLite lose is shown by the same check.
"""

import errno
import os
import random
import subprocess
import sys

import pytest

from tests.correctness.sizes import sizes
from tests.durability.disk import replay
from tests.durability.recorder import ROOT, SYNCS, Action, Operation, Recorder
from tests.durability.recovery import Expected, Recovery
from tests.durability.writer import BASE, history


def traced(library, folder, calls, *pragmas, failing=None):
    """Writes so many calls; returns every operation, and what checks them."""
    disk = folder / "disk"
    disk.mkdir()
    recorder = Recorder(library, disk, folder)
    recorder.act(**failing or {"action": Action.NOTHING})
    file = recorder.folder / "vocabulary.sqlite"
    recorder.run("tests.durability.writer", str(file), str(calls), *pragmas)
    events = recorder.events()
    assert sum(event.operation is Operation.ACKNOWLEDGE for event in events) == calls
    assert len(events) > 8 * calls
    return events, Recovery(BASE, expected(calls), file, folder)


def expected(calls):
    newest = BASE
    made = []
    for link, call, response in history(calls):
        newest = newest if link is None else link.vocabulary
        made.append(Expected(call.idempotency_key, response, newest.fingerprint, newest.revision))
    return made


@sizes("stores", [16], [98, 99, 100, 101, 102])
def test_nothing_acknowledged_is_lost_and_nothing_is_torn(library, memory_folder, stores):
    for calls in stores:  # other numbers are other calls
        folder = memory_folder / str(calls)
        folder.mkdir()
        events, recovery = traced(library, folder, calls)
        findings = recovery.check(events, random.Random(7), random_states=4)
        print(f"{calls} calls, {findings.boundaries} boundaries, {findings.states} states")
        assert not findings.problems, findings.examples


@pytest.mark.parametrize(
    "pragmas",
    [
        # Nothing is synced.
        ("synchronous=OFF",),
        # The header that makes a journal valid is synced together with its pages,
        # and the checksum of a page is over 21 of its bytes.
        ("synchronous=NORMAL",),
        # The journal is removed without a sync of its folder, and comes back.
        ("locking_mode=NORMAL", "synchronous=FULL"),
        ("journal_mode=TRUNCATE", "synchronous=NORMAL"),
        ("journal_mode=WAL", "synchronous=NORMAL"),
        ("journal_mode=WAL", "synchronous=OFF"),
        ("journal_mode=MEMORY",),
        ("journal_mode=OFF",),
    ],
    ids=" ".join,
)
def test_weaker_syncing_is_found_out(library, memory_folder, pragmas):
    events, recovery = traced(library, memory_folder, 30, *pragmas)
    findings = recovery.check(events, random.Random(7), random_states=8, stop=True)
    assert findings.problems


@pytest.mark.parametrize(
    "pragmas",
    [
        # As strong as what the store asks for, each for its own reason: the file that is
        # locked for good keeps its journal and overwrites its header with a sync.
        ("synchronous=FULL",),
        ("journal_mode=TRUNCATE", "synchronous=FULL"),
        ("journal_mode=WAL", "synchronous=FULL"),
    ],
    ids=" ".join,
)
def test_other_ways_to_sync_fully_pass_the_same_check(library, memory_folder, pragmas):
    events, recovery = traced(library, memory_folder, 6, *pragmas)
    findings = recovery.check(events, random.Random(7), random_states=2)
    assert not findings.problems, findings.examples


def failing(kind, period, error):
    """Lets an operation fail, over and over, from when the store has been opened."""
    first, kinds = (20, SYNCS) if kind is Operation.SYNC else (120, (kind,))
    return {
        "action": Action.FAIL,
        "number": first,
        "kinds": kinds,
        "period": period,
        "error": error,
    }


@sizes("calls", 8, 120)
@pytest.mark.parametrize(
    ("kind", "period", "error"),
    [
        # Periods that shift from one call to the next, so that each operation has its turn,
        # and leave room for an attempt that succeeds.
        (Operation.SYNC, 17, errno.EIO),
        (Operation.WRITE, 61, errno.ENOSPC),
    ],
    ids=["syncs", "writes"],
)
def test_a_disk_that_fails_now_and_then_and_loses_power_loses_nothing_else(
    library, memory_folder, calls, kind, period, error
):
    events, recovery = traced(library, memory_folder, calls, failing=failing(kind, period, error))
    if kind is Operation.SYNC:
        assert any(event.error for event in events)
    findings = recovery.check(events, random.Random(7), random_states=2)
    print(f"{calls} calls, {findings.boundaries} boundaries, {findings.states} states")
    assert not findings.problems, findings.examples


@sizes("starts", [20, 23], range(18, 35))
def test_whichever_syncs_fail_before_the_power_does_nothing_is_torn(library, memory_folder, starts):
    for start in starts:
        folder = memory_folder / str(start)
        folder.mkdir()
        failure = failing(Operation.SYNC, 17, errno.EIO) | {"number": start}
        events, recovery = traced(library, folder, 8, failing=failure)
        findings = recovery.check(events, random.Random(7), random_states=2)
        assert not findings.problems, (start, findings.examples)


# The syncs of one call: they are four, and the store was opened and wrote before.
SYNCS_OF_A_CALL = range(20, 24)


def lost_after(library, folder, number, *arguments):
    """Lets one sync fail, and says whether what was acknowledged then may be lost."""
    folder = folder / str(number)
    folder.mkdir()
    failure = {"action": Action.FAIL, "number": number, "kinds": SYNCS, "error": errno.EIO}
    events, recovery = traced(library, folder, 7, *arguments, failing=failure)
    assert sum(bool(event.error) for event in events) == 1
    return recovery.check(events, random.Random(7), random_states=2, stop=True).problems["lost"]


def test_after_any_sync_that_fails_only_what_is_on_the_disk_is_acknowledged(library, memory_folder):
    found = [lost_after(library, memory_folder, number) for number in SYNCS_OF_A_CALL]
    assert not any(found)


def test_a_store_that_goes_on_after_a_failed_sync_is_found_out(library, memory_folder):
    found = [lost_after(library, memory_folder, number, "trusting") for number in SYNCS_OF_A_CALL]
    assert any(found)


def test_the_folder_of_the_default_store_is_there_after_a_power_failure(library, memory_folder):
    disk = memory_folder / "disk"
    disk.mkdir()
    recorder = Recorder(library, disk, memory_folder)
    wanted = recorder.folder / "share" / "lockstep" / "tiny"
    program = (
        "from pathlib import Path\n"
        "from tokenizer_service.store import durable_folder\n"
        f"durable_folder.make(Path({str(wanted)!r}))\n"
    )
    environment = {**os.environ, **recorder.environment}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)
    *_, (_, after) = replay(str(recorder.folder), recorder.events())
    (state,) = after.states(random.Random(7), 20)
    assert str(wanted) in state
