"""A contender: a process that reads rounds as JSON lines and answers with measurements."""

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Self

from bench.workload import Measurement

# Spinning OpenMP threads of an idle contender would slow the one that runs.
ENVIRONMENT = {"GOMP_SPINCOUNT": "10000", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


class Contender:
    """Starts `python -m MODULE ARGUMENTS` and talks to it over its pipes."""

    def __init__(self, name: str, module: str, *arguments: str, threads: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, prompts: list[list[int]], new_tokens: int) -> Measurement:
        """Runs one round and returns what it measured.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "new_tokens": new_tokens}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}.")
        return Measurement(**json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
