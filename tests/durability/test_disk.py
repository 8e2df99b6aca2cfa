"""The rules of the disk, on traces whose outcomes can be counted by hand."""

import random

import pytest

from tests.durability.disk import SECTOR, Disk
from tests.durability.recorder import Event, Operation

ROOT = "/disk"
FILE = "/disk/file"
CREATE = Event(Operation.CREATE, file=1, path=FILE)
SYNC = Event(Operation.SYNC, file=1)
FAILED_SYNC = Event(Operation.SYNC, file=1, error=5)
SYNC_FOLDER = Event(Operation.SYNC_FOLDER, path=ROOT)
UNLINK = Event(Operation.UNLINK, path=FILE)
TRUNCATE = Event(Operation.TRUNCATE, file=1, offset=1)
SAVED = [CREATE, SYNC_FOLDER]


def write(data, offset=0):
    return Event(Operation.WRITE, file=1, offset=offset, data=data)


def outcomes(*events):
    """Returns every content that the file was found with; None where there was no file."""
    disk = Disk(ROOT)
    for event in events:
        disk.apply(event)
    return {state.get(FILE) for state in disk.states(random.Random(1), 300)}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([CREATE, SYNC], {None, b""}),  # the file is synced, its name is not
        ([CREATE, SYNC, SYNC_FOLDER], {b""}),
        ([*SAVED, write(b"a"), SYNC], {b"a"}),
        ([*SAVED, write(b"a"), SYNC, write(b"b")], {b"a", b"b"}),
        ([*SAVED, write(b"a"), SYNC, write(b"b"), write(b"c")], {b"a", b"b", b"c"}),
        ([*SAVED, write(b"ab"), SYNC, write(b"c", 1), write(b"d")], {b"ab", b"ac", b"dc"}),
        ([*SAVED, write(b"a"), SYNC, UNLINK], {b"a", None}),
        ([*SAVED, write(b"a"), SYNC, UNLINK, SYNC_FOLDER], {None}),
        ([*SAVED, write(b"ab"), SYNC, TRUNCATE], {b"ab", b"a\0", b"a"}),
        # A sync that failed is not made up for by one that did not, but by writing again.
        ([*SAVED, write(b"a"), SYNC, write(b"b"), FAILED_SYNC, SYNC], {b"a", b"b"}),
        ([*SAVED, write(b"a"), SYNC, write(b"b"), FAILED_SYNC, write(b"b"), SYNC], {b"b"}),
    ],
)
def test_a_power_failure_leaves_one_of_these(events, expected):
    assert outcomes(*events) == expected


def test_a_write_tears_at_sectors_and_nowhere_else():
    old, new = b"o" * SECTOR, b"n" * SECTOR
    events = (*SAVED, write(old + old), SYNC, write(new + new))
    assert outcomes(*events) == {old + old, old + new, new + old, new + new}


def test_what_a_file_gained_and_was_not_synced_may_be_anything():
    found = outcomes(*SAVED, write(b"a" * SECTOR))
    assert {b"", bytes(SECTOR), b"a" * SECTOR} < found
    assert len(found) > 10
