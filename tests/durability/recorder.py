"""Records what a process does to the files of a folder, and makes it fail there.

`recorder.cpp` is loaded into the process and sees its calls of the C library: every
write, truncation, sync, creation and removal, as SQLite makes them. Nothing of SQLite
or of the store is replaced.
"""

import ctypes
import enum
import mmap
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("recorder.cpp")

_RECORD = struct.Struct("=IiQqII")


class Operation(enum.IntEnum):
    """What was done. The first eight are numbered as in `recorder.cpp`."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    SYNC_FOLDER = 5
    UNLINK = 6
    RENAME = 7
    MKDIR = 8
    ACKNOWLEDGE = 100


class Action(enum.IntEnum):
    """What is done with an operation that is picked out."""

    NOTHING = 0
    FAIL = 1
    KILL_BEFORE = 2
    KILL_HALFWAY = 3
    KILL_AFTER = 4


EVERY = tuple(Operation)[:8]
SYNCS = (Operation.SYNC, Operation.SYNC_FOLDER)


@dataclass(frozen=True, slots=True)
class Event:
    """One operation, in the order they happened.

    Attributes:
        operation: what was done.
        error: 0, or the `errno` of a sync that failed.
        file: inode of what was created, written, truncated or synced.
        offset: where data was written, or the new length.
        path: of what was created or removed, or the folder that was synced.
        data: what was written, or what was acknowledged.
    """

    operation: Operation
    error: int = 0
    file: int = 0
    offset: int = 0
    path: str = ""
    data: bytes = b""


class _Control(ctypes.Structure):
    _fields_ = (
        ("seen", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("period", ctypes.c_int64),
        ("kinds", ctypes.c_uint32),
        ("action", ctypes.c_int32),
        ("error", ctypes.c_int32),
    )


class Recorder:
    """The trace of one folder, and what goes wrong there."""

    def __init__(self, library: Path, folder: Path, scratch: Path) -> None:
        """Prepares the files that the process shares with this one.

        Args:
            library: `recorder.cpp`, built.
            folder: what to watch.
            scratch: existing folder for the trace, outside of `folder`.
        """
        self.folder = folder.resolve()
        self._library = library
        self._trace = scratch / "trace"
        self._trace.touch()
        self._control_file = scratch / "control"
        self._control_file.write_bytes(bytes(ctypes.sizeof(_Control)))
        with self._control_file.open("r+b") as file:
            self._control = _Control.from_buffer(mmap.mmap(file.fileno(), 0))

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make a process be recorded."""
        return {
            "LD_PRELOAD": str(self._library),
            "DISK_FOLDER": str(self.folder),
            "DISK_TRACE": str(self._trace),
            "DISK_CONTROL": str(self._control_file),
        }

    @property
    def seen(self) -> int:
        """Operations since `act`, of the kinds it named."""
        return self._control.seen

    def act(
        self,
        action: Action,
        number: int = 0,
        *,
        kinds: tuple[Operation, ...] = EVERY,
        count: int = 1,
        period: int = 0,
        error: int = 0,
    ) -> None:
        """Picks out operations that come from now on.

        Args:
            action: what to do with them; `NOTHING` only counts.
            number: how many of the kinds come before.
            kinds: which operations.
            count: how many of them in a row.
            period: after how many operations it happens again; 0 for never.
            error: `errno` of those that fail.
        """
        control = self._control
        control.kinds = 0  # nothing is counted while the rest changes
        control.seen, control.first, control.count = 0, number, count
        control.period, control.action, control.error = period, action, error
        control.kinds = sum(1 << kind for kind in kinds)

    def acknowledge(self, what: bytes) -> None:
        """Notes that a caller was told so, after everything the process did until now."""
        acknowledge(self._trace, what)

    def run(self, module: str, *arguments: str) -> None:
        """Runs a module in a process that is recorded, until it ends."""
        command = [sys.executable, "-m", module, *arguments]
        environment = {**os.environ, **self.environment}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)

    def events(self) -> list[Event]:
        """Reads the trace."""
        return list(_read(self._trace.read_bytes()))


def acknowledge(trace: Path, what: bytes) -> None:
    """Adds an acknowledgement to a trace. One write, so that it is never interleaved."""
    record = _RECORD.pack(Operation.ACKNOWLEDGE, 0, 0, 0, 0, len(what)) + what
    descriptor = os.open(trace, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, record)
    finally:
        os.close(descriptor)


def build(folder: Path) -> Path:
    """Compiles `recorder.cpp`."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    assert compiler, "these tests need g++"
    library = folder / "recorder.so"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def _read(trace: bytes) -> Iterator[Event]:
    position = 0
    while position < len(trace):
        operation, error, file, offset, path_bytes, data_bytes = _RECORD.unpack_from(
            trace, position
        )
        position += _RECORD.size
        path = trace[position : position + path_bytes].decode()
        position += path_bytes
        data = trace[position : position + data_bytes]
        position += data_bytes
        yield Event(Operation(operation), error, file, offset, path, data)
