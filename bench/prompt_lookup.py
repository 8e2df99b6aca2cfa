"""`python -m bench.prompt_lookup`: what guesses from the prompt give, with equal tokens.

Two questions take turns with every number of guesses: one whose answer repeats
most of it, and one whose answer is new. Tokens are compared with those without
guesses. In bfloat16 a product of several rows may round differently from one of
a single row, and a tie of two tokens then be decided the other way; in float32
all must be equal, and this program fails if they are not.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from transformers import AutoTokenizer

from bench import command
from bench.local_engine import LocalEngine, greedy
from bench.spread import spread

HEADER = (
    "| task | guesses | tok/s: median (min to max) | ratio | steps | at best | accepted | "
    "same tokens |\n|---|---|---|---|---|---|---|---|"
)

CODE = """def total_price(items, rate):
    total = 0.0
    for item in items:
        price = item.price * item.count
        if item.taxed:
            price = price * rate
        total = total + price
    return total
"""

QUESTIONS = {
    "copy": f"Repeat this code with the name grand_total:\n\n{CODE}",
    "story": "Tell me a story about a lighthouse keeper who finds a letter in a bottle.",
}


@dataclass(slots=True)
class Case:
    """One question with one number of guesses, by round. Durations in seconds."""

    task: str
    guesses: int
    duration_s: list[float] = field(default_factory=list)
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    prompt: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def markdown(self, plain: "Case") -> str:
        """Returns a line of the table.

        Args:
            plain: the same question without guesses.
        """
        rates = [len(self.tokens) / duration for duration in self.duration_s]
        pairs = zip(plain.duration_s, self.duration_s, strict=True)
        same = common(self.tokens, plain.tokens)
        return (
            f"| {self.task} | {self.guesses} | {spread(rates)} | "
            f"{spread([one / two for one, two in pairs], 2)} | {self.steps} | "
            f"{fewest_steps(self.prompt, self.tokens, self.guesses)} | "
            f"{self.accepted} of {self.drafted} | {same} of {len(plain.tokens)} |"
        )


def fewest_steps(prompt: list[int], tokens: list[int], guesses: int) -> int:
    """Returns the steps that tokens take where every guess is known to be right before it is made.

    That is the best that any prompt lookup could do: at each step the longest right continuation
    of an earlier place of the newest token.
    """
    text, place, steps = prompt + tokens, len(prompt) + 1, 0
    while place < len(text):
        ahead = text[place : min(place + guesses, len(text) - 1)]
        starts = (i + 1 for i in range(place - 1) if text[i] == text[place - 1])
        place += 1 + max((common(ahead, text[start:]) for start in starts), default=0)
        steps += 1
    return steps


def common(one: list[int], other: list[int]) -> int:
    """Returns how many leading tokens are equal."""
    unequal = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unequal, min(len(one), len(other)))


def prompts(folder: Path) -> dict[str, list[int]]:
    """Returns the ids of the questions, as a model's chat template asks them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    result = {}
    for task, text in QUESTIONS.items():
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        result[task] = cast(list[int], ids)
    return result


def run(engine: LocalEngine, case: Case, prompt: list[int], new_tokens: int) -> None:
    """Generates once. The time counts from the first token on."""
    call = engine.submit([prompt], greedy(new_tokens, prompt_lookup_num_tokens=case.guesses))
    while not engine.tokens[call]:
        engine.step()
    start = time.perf_counter()
    steps = engine.drain()
    case.duration_s.append(time.perf_counter() - start)
    case.prompt, case.tokens = prompt, engine.rows(call)[0]
    case.steps = len(steps)
    case.drafted = sum(step.drafted for step in steps)
    case.accepted = sum(step.accepted for step in steps)


def main() -> int:
    """Reads the arguments, measures and prints the table. Returns the exit status."""
    parser = command.parser("bench.prompt_lookup", __doc__, rounds=3)
    parser.add_argument("--guesses", type=int, nargs="+", default=[4, 8, 15])
    parser.add_argument("--new-tokens", type=int, default=200)
    parser.add_argument("--decode-graphs", choices=["auto", "off"], default="auto")
    arguments = command.parse(parser)
    folder = command.folder(arguments)
    engine = LocalEngine(folder, command.DTYPES[arguments.dtype], arguments.decode_graphs)
    engine.finish_graphs()
    asked = prompts(folder)
    cases = [Case(task, count) for task in asked for count in (0, *arguments.guesses)]
    for case in cases[:2]:  # the first of all are slow
        run(engine, Case(case.task, case.guesses), asked[case.task], arguments.new_tokens)
    for index in range(arguments.rounds):
        for case in reversed(cases) if index % 2 else cases:
            run(engine, case, asked[case.task], arguments.new_tokens)
    plain = {case.task: case for case in cases if not case.guesses}
    print(HEADER)
    for case in cases:
        print(case.markdown(plain[case.task]))
    same = all(case.tokens == plain[case.task].tokens for case in cases)
    return int(arguments.dtype == "fp32" and not same)


if __name__ == "__main__":
    sys.exit(main())
