"""The power fails, and fails again while the store is being opened."""

import random
from pathlib import Path

from tests.correctness.sizes import sizes
from tests.durability.disk import Disk, replay
from tests.durability.recorder import Operation, Recorder
from tests.durability.test_power_loss import traced

CALLS = 12
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


@sizes("stores", 4, 100)
def test_a_second_power_failure_changes_nothing_about_the_first(library, memory_folder, stores):
    draw = random.Random(3)
    events, recovery = traced(library, memory_folder, CALLS)
    root = str(memory_folder / "disk")
    broken = draw.sample(list(in_the_middle(root, events, draw)), stores)
    again = memory_folder / "again"
    folders = [put(again / str(number), state) for number, state in enumerate(broken)]
    disks = [Disk.holding(folder) for folder in folders]
    recorder = Recorder(library, again, memory_folder)
    first = len(recorder.events())
    recorder.run("tests.durability.opener", *(str(one / "vocabulary.sqlite") for one in folders))
    boundaries = 0
    for number, event in by_folder(folders, disks, recorder.events()[first:]):
        disks[number].apply(event)
        boundaries += 1
        expected = recovery.calls_in(broken[number])
        assert isinstance(expected, int)
        for state in disks[number].states(draw, 3):
            there = {path.replace(str(folders[number]), root): state[path] for path in state}
            assert recovery.calls_in(there) == expected
    print(f"{stores} stores, {boundaries} boundaries")
    assert boundaries > 8 * stores


def in_the_middle(root, events, draw):
    """Yields states whose journal has to be played back."""
    for _, disk in replay(root, events):
        for state in disk.states(draw, 2):
            if state.get(f"{root}/vocabulary.sqlite-journal", b"").startswith(JOURNAL_MAGIC):
                yield state


def put(folder, state):
    folder.mkdir(parents=True)
    for path, content in state.items():
        (folder / Path(path).name).write_bytes(content)
    return folder


def by_folder(folders, disks, events):
    """Yields every event with the number of the store it is about."""
    owners = {file: number for number, disk in enumerate(disks) for file in disk.files}
    for event in events:
        if event.path:
            named = {str(folder): number for number, folder in enumerate(folders)}
            path = Path(event.path)
            number = named[str(path if str(path) in named else path.parent)]
        else:
            number = owners[event.file]
        if event.operation is Operation.CREATE:
            owners[event.file] = number
        yield number, event
