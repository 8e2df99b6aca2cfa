"""Folders whose entries are on the disk, too: syncing a file does not sync its name."""

import os
from pathlib import Path


def make(folder: Path) -> None:
    """Makes a folder and those above it where they are missing.

    Raises:
        OSError: it cannot be made, or the disk failed.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync(one.parent)


def sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
