"""Asks one question through both services and shows the answer as it comes."""

import time
from dataclasses import dataclass

from rich.console import Console

from deploy.local.stack import Stack
from lockstep_client import Lockstep

QUESTION = "What is the capital of France?"
MAX_NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        text: the whole answer.
        pieces: in how many pieces it came.
        first_s: seconds to the first piece.
        total_s: seconds to the last.
    """

    text: str
    pieces: int
    first_s: float
    total_s: float

    def __str__(self) -> str:
        rate = (self.pieces - 1) / max(self.total_s - self.first_s, 1e-9)
        return (
            f"First piece after {self.first_s * 1000:.0f} ms, {self.pieces} pieces in "
            f"{self.total_s:.2f} s, {rate:.0f} a second."
        )


def ask(stack: Stack, question: str, console: Console) -> Answer:
    """Streams the answer to the console.

    Greedy, so that the same question gets the same answer.
    """
    console.print(f"[bold]Question[/bold]  {question}", highlight=False)
    console.print("[bold]Answer[/bold]    ", end="")
    messages = [{"role": "user", "content": question}]
    pieces: list[str] = []
    first_s = 0.0
    start = time.perf_counter()
    with Lockstep(tokenizer=stack.tokenizer.target, model=stack.model.target) as lockstep:
        for piece in lockstep.stream(
            messages=messages, max_new_tokens=MAX_NEW_TOKENS, do_sample=False
        ):
            first_s = first_s or time.perf_counter() - start
            pieces.append(piece)
            console.print(piece, end="", markup=False, highlight=False)
    total_s = time.perf_counter() - start
    console.print()
    return Answer("".join(pieces), len(pieces), first_s, total_s)
