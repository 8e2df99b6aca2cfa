"""The folder that compiled code is kept in, which is not writable on every machine."""

import logging
import tempfile
from pathlib import Path

from checkpoints import cache

logger = logging.getLogger(__name__)


class CodeFolder:
    """Compiled code by name: what is kept from earlier runs, and what this one adds.

    Attributes:
        kept: the folder that was set.
    """

    def __init__(self, setting: str) -> None:
        """Reads nothing yet.

        Args:
            setting: the folder; empty for the cache folder, where models are kept as well.
        """
        self.kept = Path(setting).expanduser() if setting else cache.root()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def find(self, name: str) -> Path | None:
        """Returns an entry, also one in a folder that cannot be written; None if there is none."""
        folder = self.kept / name
        return folder if folder.is_dir() else None

    def writable(self) -> Path:
        """Returns the folder that new entries go to.

        Where the one that was set cannot be written, as where models are mounted read-only, it is
        a temporary one that ends with this object: no other process can have put code into it.
        """
        if self._temporary is not None:
            return Path(self._temporary.name)
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.kept):
                return self.kept
        except OSError as error:
            self._temporary = tempfile.TemporaryDirectory(prefix="lockstep-compiled-")
            logger.warning(
                "%s cannot be written (%s): compiled steps go to %s and are lost at the end of "
                "this run; --compile-cache names a folder that keeps them",
                self.kept,
                error.strerror or error,
                self._temporary.name,
            )
            return Path(self._temporary.name)

    def close(self) -> None:
        """Removes the temporary folder, if there is one. Code that is loaded stays loaded."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
