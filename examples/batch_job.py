"""Continues every prompt of a file, with a progress bar, and goes on where it was stopped.

    python examples/batch_job.py prompts.jsonl answers.jsonl

Each line of the first file is `{"id": ..., "prompt": ...}`. A line of the second has the id with
the text, or with the error of this prompt alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lockstep_client import Lockstep, LockstepError

PART = 1000  # lines that are written at a time


def answers(ls: Lockstep, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Continues the prompts of some lines, in their order.

    The client divides the list by the limits of the server, keeps it busy, and waits when it is
    told to.
    """
    prompts = [line["prompt"] for line in lines]
    done = ls.generate(prompts, max_new_tokens=64, do_sample=False, progress=True, errors="return")
    return [
        {"id": line["id"], "error": str(answer)}
        if isinstance(answer, LockstepError)
        else {"id": line["id"], "text": answer.text, "finish_reason": answer.finish_reason}
        for line, answer in zip(lines, done, strict=True)
    ]


def main() -> None:
    """Reads the lines that are still to do, and appends their answers."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    have = target.read_text().splitlines() if target.exists() else []
    finished = {json.loads(line)["id"] for line in have}
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    rest = [line for line in lines if line["id"] not in finished]
    with Lockstep() as ls, target.open("a") as file:
        for first in range(0, len(rest), PART):
            for answer in answers(ls, rest[first : first + PART]):
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
