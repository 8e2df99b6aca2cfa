"""The folder for what is downloaded and converted, and how it is written.

`$LOCKSTEP_CACHE`, or `lockstep` in the user's cache folder. Entries appear complete or not at
all, and several processes may ask for the same one at once.
"""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import platformdirs

from checkpoints.errors import CheckpointAbsent, CheckpointError

# Of a folder that somebody else fills, such as a volume that is mounted read-only.
_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)


def root() -> Path:
    """Returns the cache folder. It need not exist."""
    given = os.environ.get("LOCKSTEP_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("lockstep")


def entry(name: str, write: Callable[[Path], None], folder: Path | None = None) -> Path:
    """Returns the folder `name`, written by `write` if it does not exist.

    Args:
        name: path below the cache folder.
        write: fills an empty folder. When it raises, the entry does not come to exist.
        folder: holds the entry instead of the cache folder.

    Raises:
        CheckpointAbsent: it does not exist, and this process may not write it.
        CheckpointError: the cache folder cannot be written for another reason.
    """
    target = (folder or root()) / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not target.is_dir():  # another process may have been faster
                _write(target, write)
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise CheckpointAbsent(
                f"{target.name} is not in the cache folder {root()}, which this process may only "
                f"read ({error.strerror}): let `python -m checkpoints MODEL` put it there, or set "
                "LOCKSTEP_CACHE to a folder that can be written."
            ) from error
        raise CheckpointError(
            f"The cache folder {root()} cannot be written ({error.strerror or error}): "
            "set LOCKSTEP_CACHE to one that can."
        ) from error
    return target


def check_room(folder: Path, num_bytes: int) -> None:
    """Checks that what is to be written fits the disk, before it is begun.

    Raises:
        OSError: it does not.
    """
    whole = folder.absolute()
    there = next(each for each in (whole, *whole.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        have = f"{num_bytes / 2**20:,.0f} MiB are needed and {free / 2**20:,.0f} MiB are free"
        raise OSError(errno.ENOSPC, f"the disk is full: {have}")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"Waiting for another process that prepares {target.name}.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write(target: Path, write: Callable[[Path], None]) -> None:
    """Writes into a folder next to `target` and renames it. The caller holds the lock."""
    prefix = f".{target.name}.part-"
    for left_over in target.parent.glob(f"{prefix}*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        write(part)
        for path in part.iterdir():
            path.chmod(0o644)  # readable for the other service, which may run as another user
            with path.open("rb") as file:
                os.fsync(file.fileno())  # a rename must not outlive the bytes in a power cut
        part.chmod(0o755)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
