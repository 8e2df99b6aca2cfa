"""What a file says, read again when it is replaced."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")

# How often the file is looked at, at most: a call must not wait for a disk.
_LOOK_INTERVAL_S = 1.0

_log = structlog.stdlib.get_logger(__name__)


class WatchedFile(Generic[T]):
    """A file with a meaning. One that cannot be read any more keeps the meaning that it had."""

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        """Reads the file.

        Args:
            path: the file.
            parse: what it means; a ValueError says why it means nothing.

        Raises:
            OSError: it cannot be read, or means nothing.
        """
        self._path = path
        self._parse = parse
        self._stamp = self._stat()
        self._looked_at = time.monotonic()
        self._value = self._read()

    def value(self) -> T:
        """Returns what it says, or said a second ago: the same object until that changes."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_INTERVAL_S:
            self._looked_at = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            stamp = self._stat()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._value = self._read()
        except OSError as error:
            _log.error("file_not_usable", path=str(self._path), reason=str(error))
        else:
            _log.info("file_changed", path=str(self._path))

    def _read(self) -> T:
        try:
            return self._parse(self._path.read_bytes())
        except ValueError as error:
            raise OSError(f"{self._path}: {error}") from None

    def _stat(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
