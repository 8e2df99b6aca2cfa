"""The loop that every contender runs: a line in, a measurement out."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from bench.workload import Measurement


def answer(run: Callable[[list[list[int]], int], Measurement]) -> None:
    """Answers rounds until standard input ends. Nothing else reaches standard output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request = json.loads(line)
        measurement = run(request["prompts"], request["new_tokens"])
        answers.write(json.dumps(asdict(measurement)) + "\n")
        answers.flush()
