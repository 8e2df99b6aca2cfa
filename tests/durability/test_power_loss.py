"""The power fails after every write and every sync of a real store.

What is promised: every acknowledged call is there, at most the one in flight besides,
and each as a whole. What weaker settings of SQLite lose is shown by the same check.
"""

import random

import pytest

from tests.correctness.sizes import sizes
from tests.durability.recorder import Operation, Recorder
from tests.durability.recovery import Expected, Recovery
from tests.durability.writer import BASE, history


def traced(library, folder, calls, *pragmas):
    """Writes so many calls; returns every operation, and what checks them."""
    disk = folder / "disk"
    disk.mkdir()
    recorder = Recorder(library, disk, folder)
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


@sizes("calls", 25, 500)
def test_nothing_acknowledged_is_lost_and_nothing_is_torn(library, memory_folder, calls):
    events, recovery = traced(library, memory_folder, calls)
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
    events, recovery = traced(library, memory_folder, 12, *pragmas)
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
