"""What a disk can hold after the power fails, by the rules of POSIX and no kinder.

- What was written since the last sync of its file may be there, in sectors of 512
  bytes: each as it was at the sync or after any of the writes since.
- A file's size is that at the sync or any since. What it gained may be garbage.
- A name that was made or removed since the last sync of its folder may be there.
- A sync of a file that fails has made nothing certain, and a later one does not make
  up for it: the kernel takes the pages for clean until they are written again. One of
  a folder can be made up for: names are in the journal of the file system.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.durability.recorder import Event, Operation

SECTOR = 512
PAGE = 4096

State = dict[str, bytes | None]
"""Content by path; None is a folder."""


@dataclass
class _File:
    """A regular file: what the process sees, and what may be on the disk."""

    live: bytearray = field(default_factory=bytearray)
    certain: bytearray = field(default_factory=bytearray)
    # Contents that a sector may have besides the certain one, oldest first.
    sectors: dict[int, list[bytes]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=lambda: [0])
    dirty: set[int] = field(default_factory=set)  # pages
    size_is_dirty: bool = False

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.live):
            self._resize(end)
        self.live[offset:end] = data
        self._touched(offset, end)

    def truncate(self, length: int) -> None:
        self._resize(length)
        self._touched(length - length % SECTOR, length)

    def sync(self, *, failed: bool) -> None:
        if not failed:
            for page in self.dirty:
                for sector in range(page * PAGE // SECTOR, (page + 1) * PAGE // SECTOR):
                    if versions := self.sectors.pop(sector, None):
                        self._make_certain(sector, versions[-1])
            if self.size_is_dirty:
                self.sizes = self.sizes[-1:]
                del self.certain[self.sizes[0] :]
        self.dirty.clear()
        self.size_is_dirty = False

    def content(self, choose, fill) -> bytes:
        """Returns a content.

        Args:
            choose: picks from versions, oldest first.
            fill: makes the bytes of a sector that was allocated and not written.
        """
        size = choose(self.sizes)
        made = bytearray(self.certain[:size].ljust(size, b"\0"))
        for sector, versions in self.sectors.items():
            start = sector * SECTOR
            if start < size:
                before = bytes(self.certain[start : start + SECTOR]) or fill(SECTOR)
                made[start : start + SECTOR] = choose([before, *versions]).ljust(SECTOR, b"\0")
        return bytes(made[:size])

    @property
    def is_certain(self) -> bool:
        return not self.sectors and len(self.sizes) == 1

    def _resize(self, length: int) -> None:
        if length < len(self.live):
            del self.live[length:]
        else:
            self.live.extend(bytes(length - len(self.live)))
        self.sizes.append(length)
        self.size_is_dirty = True

    def _touched(self, start: int, end: int) -> None:
        for sector in range(start // SECTOR, -(-end // SECTOR)):
            content = bytes(self.live[sector * SECTOR : (sector + 1) * SECTOR])
            self.sectors.setdefault(sector, []).append(content.ljust(SECTOR, b"\0"))
            self.dirty.add(sector * SECTOR // PAGE)

    def _make_certain(self, sector: int, content: bytes) -> None:
        start = sector * SECTOR
        if len(self.certain) < start + SECTOR:
            self.certain.extend(bytes(start + SECTOR - len(self.certain)))
        self.certain[start : start + SECTOR] = content


@dataclass
class _Name:
    """A name in a folder: what it may stand for, oldest first; the last one is seen."""

    versions: list[_File | str | None]


FOLDER = "folder"


class Disk:
    """Follows a trace, and tells what the disk may hold at any moment of it."""

    def __init__(self, root: str) -> None:
        """Begins with an empty folder that is on the disk."""
        self._root = root
        self._names: dict[str, _Name] = {}
        self._files: dict[int, _File] = {}

    @classmethod
    def holding(cls, folder: Path) -> "Disk":
        """Begins with what is in a folder, all of it on the disk."""
        disk = cls(str(folder))
        for path in folder.iterdir():
            content = path.read_bytes()
            file = _File(bytearray(content), bytearray(content), sizes=[len(content)])
            disk._files[path.stat().st_ino] = file
            disk._names[str(path)] = _Name([file])
        return disk

    def apply(self, event: Event) -> None:
        """Does what the process did."""
        match event.operation:
            case Operation.CREATE:
                file = self._files[event.file] = _File()
                self._name(event.path, file)
            case Operation.MKDIR:
                self._name(event.path, FOLDER)
            case Operation.UNLINK:
                self._name(event.path, None)
            case Operation.RENAME:
                old, new = event.path.split("\0")
                self._name(new, self._names[old].versions[-1])
                self._name(old, None)
            case Operation.WRITE:
                self._files[event.file].write(event.offset, event.data)
            case Operation.TRUNCATE:
                self._files[event.file].truncate(event.offset)
            case Operation.SYNC:
                self._files[event.file].sync(failed=bool(event.error))
            case Operation.SYNC_FOLDER:
                if not event.error:
                    self._sync_folder(event.path)

    @property
    def files(self) -> Iterable[int]:
        """Inodes of the files that were there."""
        return self._files.keys()

    @property
    def is_certain(self) -> bool:
        """Whether there is only one state to be in."""
        if any(len(name.versions) > 1 for name in self._names.values()):
            return False
        targets = [name.versions[0] for name in self._names.values()]
        return all(target.is_certain for target in targets if isinstance(target, _File))

    def states(self, draw: random.Random, count: int) -> Iterator[State]:
        """Yields states the disk may be in: the four extremes, then random ones.

        Args:
            draw: chance.
            count: how many random ones.
        """
        if self.is_certain:
            yield self._state(_last, _last)
            return
        for names in (_first, _last):
            for contents in (_first, _last):
                yield self._state(names, contents)
        for _ in range(count):
            # Mostly old, mixed, or mostly new; one file may be ahead of another.
            yield self._state(_some(draw), _some(draw), garbage=draw)

    def _state(self, names, contents, garbage: random.Random | None = None) -> State:
        state: State = {}
        for path, name in sorted(self._names.items()):
            target = names(name.versions)
            parent = str(PurePosixPath(path).parent)
            if target is None or (parent != self._root and parent not in state):
                continue
            if target == FOLDER:
                state[path] = None
                continue
            choose = contents if garbage is None else _some(garbage)
            noisy = garbage is not None and garbage.random() < 0.5
            state[path] = target.content(choose, garbage.randbytes if noisy else bytes)
        return state

    def _name(self, path: str, target: _File | str | None) -> None:
        name = self._names.get(path)
        if name is None:
            self._names[path] = _Name([None, target])
        else:
            name.versions.append(target)

    def _sync_folder(self, folder: str) -> None:
        for path, name in list(self._names.items()):
            if str(PurePosixPath(path).parent) != folder:
                continue
            name.versions = name.versions[-1:]
            if name.versions == [None]:
                del self._names[path]


def _first(versions):
    return versions[0]


def _last(versions):
    return versions[-1]


def _some(draw: random.Random):
    """Picks versions at random, with a leaning of its own towards old or new ones."""
    old, new = draw.choice(((0.8, 0.1), (0.3, 0.3), (0.1, 0.8), (0.02, 0.98), (0.98, 0.02)))

    def choose(versions):
        chance = draw.random()
        if chance < old:
            return versions[0]
        if chance > 1 - new:
            return versions[-1]
        return draw.choice(versions)

    return choose


def replay(root: str, events: Iterable[Event]) -> Iterator[tuple[Event, Disk]]:
    """Yields every event and the disk after it. One disk, which goes on changing."""
    disk = Disk(root)
    for event in events:
        disk.apply(event)
        yield event, disk
