"""A contender: a process that reads rounds as JSON lines and answers with measurements."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.workload import Measurement, Workload

ROOT = Path(__file__).resolve().parent.parent

# Spinning OpenMP threads of an idle contender would slow the one that runs.
ENVIRONMENT = {"GOMP_SPINCOUNT": "10000", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def environment(threads: int) -> dict[str, str]:
    """Returns the variables of a contender, whatever those of this process say of OpenMP."""
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return {**own, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}


class Worker:
    """Starts `python -m MODULE ARGUMENTS` and asks it over its pipes, a line of JSON each way.

    Attributes:
        name: for messages.
        pid: its process id.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        variables: dict[str, str],
        python: str = sys.executable,
    ) -> None:
        """Starts a worker and waits until it is ready.

        Args:
            name: for messages.
            module: what runs.
            arguments: of the module.
            variables: its environment.
            python: the interpreter of its environment.

        Raises:
            RuntimeError: the process has ended.
        """
        self.name = name
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            env=variables,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._answer()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}.")
        return dict(json.loads(line))

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


class Contender(Worker):
    """A worker that runs prompts."""

    def run(self, workload: Workload, seed: int) -> Measurement:
        """Runs one round and returns what it measured.

        Raises:
            RuntimeError: the process has ended.
        """
        request = {
            "prompts": workload.prompts(seed),
            "new_tokens": workload.new_tokens,
            "arrivals_s": workload.arrivals_s(seed),
        }
        return Measurement(**self.ask(request))
