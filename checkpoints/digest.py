"""SHA-256 of files, remembered by size and time of change: weights are read once, not per start."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from checkpoints import cache

_MEMORY = "digests.json"


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, lower-case hexadecimal."""
    stat = path.stat()
    key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    remembered = _remembered()
    if key in remembered:
        return remembered[key]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember(key, digest)
    return digest


def _remembered() -> dict[str, str]:
    try:
        memory = json.loads((cache.root() / _MEMORY).read_text())
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _remember(key: str, digest: str) -> None:
    """Adds a line, replacing the file at once. A race loses a line, which costs time only."""
    with contextlib.suppress(OSError):  # a read-only cache remembers nothing
        cache.root().mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{_MEMORY}.", dir=cache.root())
        with os.fdopen(handle, "w") as file:
            json.dump(_remembered() | {key: digest}, file, indent=0)
        Path(part).replace(cache.root() / _MEMORY)
