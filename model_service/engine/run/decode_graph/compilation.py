"""The compiling process as the engine sees it: started, asked between steps, ended."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, cast

import msgspec

from model_service.engine.run.decode_graph.compiler import Failed, Part
from model_service.engine.run.decode_graph.recipe import Recipe

MODULE = "model_service.engine.run.decode_graph.compiler"
READ_BYTES = 1 << 16

_decoder = msgspec.json.Decoder(Part | Failed)


class Compilation:
    """One process that compiles what a recipe describes."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """Starts the process. It ends when this object is closed, or this process ends.

        Args:
            recipe: what to compile.
            folder: where the results go.
        """
        self._scratch = tempfile.TemporaryDirectory(
            prefix="lockstep-compilation-", ignore_cleanup_errors=True
        )
        environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TMPDIR": self._scratch.name}
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, msgspec.json.encode(recipe).decode(), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            # A group of its own, with the compilers that it starts, but no session: Linux shares
            # the processor between sessions first, however little one of them asks for.
            process_group=0,
        )
        self._output = cast(IO[bytes], self._process.stdout)
        os.set_blocking(self._output.fileno(), False)
        self._unread = b""

    def poll(self) -> Part | Failed | None:
        """Returns the next thing the process has said, or None. Never waits."""
        if b"\n" not in self._unread:
            try:
                data = os.read(self._output.fileno(), READ_BYTES)
            except BlockingIOError:
                return None
            if not data:
                code = self._process.wait()
                return Failed(f"The compiling process ended with exit code {code}.")
            self._unread += data
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            return None
        self._unread = rest
        said: Part | Failed = _decoder.decode(line)
        return said

    def close(self) -> None:
        """Ends the process and whatever it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        cast(IO[bytes], self._process.stdin).close()
        self._output.close()
        self._scratch.cleanup()
