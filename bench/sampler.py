"""`python -m bench.sampler`: choosing tokens from candidates, against Hugging Face's classes.

Both ways get the same rows of a model's logits and the same configurations, and
take turns step by step; they must choose the same tokens, or this program fails.
"""

import statistics
import sys
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench import command
from bench.local_engine import LocalEngine, greedy
from bench.spread import spread
from bench.workload import Workload
from model_service.engine.calls.scores import row_to_array
from model_service.engine.sampling import sampler
from model_service.engine.sampling.choosing import Choosing, Draw
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig

HEADER = (
    "| rows | candidates ms | reference ms | ratio: median (min to max) | same tokens |\n"
    "|---|---|---|---|---|"
)

NEW_TOKENS = 1000


def sampled(**options: object) -> GenerationConfig:
    """Returns a configuration that draws, from all tokens unless the options say otherwise."""
    return greedy(NEW_TOKENS, **{"do_sample": True, "top_k": 0, **options})


PLAIN = greedy(NEW_TOKENS)
TOP_K = sampled(temperature=0.8, top_k=50, top_p=0.95)
TOP_P = sampled(temperature=0.7, top_p=0.9)
MIXES: dict[str, tuple[GenerationConfig, ...]] = {
    "greedy": (PLAIN,),
    "top_k": (TOP_K,),
    "top_p": (TOP_P,),
    "mixed": (
        PLAIN,
        TOP_K,
        TOP_P,
        greedy(NEW_TOKENS, repetition_penalty=1.2, no_repeat_ngram_size=3),
        sampled(min_p=0.05),
        sampled(typical_p=0.9),
        sampled(top_k=40, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=0.2),
        sampled(top_p=0.95, epsilon_cutoff=3e-4, logit_bias=((100, 2.0), (200, -3.0))),
    ),
}
"""Configurations that rows have in turn."""


@dataclass(slots=True)
class Line:
    """One mix: the median step of every round, in seconds, and how many tokens were equal."""

    mix: str
    candidates: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    num_equal: int = 0
    num_tokens: int = 0

    def markdown(self) -> str:
        """Returns a line of the table."""
        fast, slow = (
            spread([1000 * step for step in steps]) for steps in (self.candidates, self.reference)
        )
        pairs = zip(self.reference, self.candidates, strict=True)
        ratios = spread([one / two for one, two in pairs])
        same = f"{self.num_equal} of {self.num_tokens}"
        return f"| {self.mix} | {fast} | {slow} | {ratios} | {same} |"


def text(new_tokens: int) -> GenerationConfig:
    """Returns a configuration that gives a text like what people ask for, and varied."""
    return greedy(new_tokens, do_sample=True, temperature=0.8, top_k=50)


def collect(engine: LocalEngine, workload: Workload) -> tuple[list[list[int]], list[Tensor]]:
    """Returns texts of the model's own, and the logits `[R, V]` float32 of the steps behind them.

    Random ids would not do: what a model makes of them is far more even than it is after text.
    """
    call = engine.submit(
        engine.prompts(Workload(workload.streams, 2), seed=0), text(workload.prompt_tokens)
    )
    engine.drain()
    prompts = engine.rows(call)
    everything = ScoreSelection(logits=True, amount="full", positions="new")
    call = engine.submit(prompts, text(workload.new_tokens), selection=everything)
    engine.drain()
    rows = engine.scores.pop(call)
    steps = []
    for index in range(workload.new_tokens):
        arrays = []
        for row in range(workload.streams):
            logits = rows[row][index].logits
            assert isinstance(logits, bytes)
            arrays.append(torch.from_numpy(row_to_array(logits, "float32").copy()))
        steps.append(torch.stack(arrays))
    return prompts, steps


def make_draws(
    prompts: list[list[int]], configs: tuple[GenerationConfig, ...], size: int, seed: int
) -> list[Draw]:
    """Returns a draw per prompt, with the configurations in turn."""
    revision = RevisionRows(size, ())
    draws = []
    for row, prompt in enumerate(prompts):
        config = configs[row % len(configs)]
        limit = len(prompt) + NEW_TOKENS
        choosing = Choosing(config, seed + row, revision, tuple(prompt), limit)
        draws.append(Draw(choosing, list(prompt), row))
    return draws


def measure(mix: str, prompts: list[list[int]], steps: list[Tensor], rounds: int) -> Line:
    """Chooses the tokens of all steps both ways, in turn.

    Args:
        mix: name of a configuration in `MIXES`.
        prompts: one per row.
        steps: of each step the logits, `[R, V]` float32.
        rounds: number of repetitions, each with other seeds.
    """
    line = Line(mix)
    size = steps[0].shape[-1]
    for seed in range(rounds):
        sides = [make_draws(prompts, MIXES[mix], size, 1000 * seed) for _ in range(2)]
        durations: tuple[list[float], list[float]] = ([], [])
        for index, logits in enumerate(steps):
            chosen = {}
            for by_reference in (False, True) if index % 2 else (True, False):
                members = sides[by_reference]
                draws = [replace(draw, wants_scores=by_reference) for draw in members]
                start = time.perf_counter()
                choices = sampler.choose(logits, draws)
                durations[by_reference].append(time.perf_counter() - start)
                chosen[by_reference] = [choice.token_id for choice in choices]
            line.num_tokens += len(prompts)
            line.num_equal += sum(a == b for a, b in zip(chosen[False], chosen[True], strict=True))
            for members in sides:
                for draw, token_id in zip(members, chosen[True], strict=True):
                    assert token_id is not None
                    draw.token_ids.append(token_id)
        line.candidates.append(statistics.median(durations[False]))
        line.reference.append(statistics.median(durations[True]))
    return line


def main() -> int:
    """Reads the arguments, measures and prints the table. Returns the exit status."""
    parser = command.parser("bench.sampler", __doc__, rounds=5)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    arguments = command.parse(parser)
    engine = LocalEngine(command.folder(arguments), command.DTYPES[arguments.dtype])
    workload = Workload(arguments.rows, arguments.prompt_tokens, arguments.steps)
    prompts, steps = collect(engine, workload)
    print(f"{len(prompts)} rows of {steps[0].shape[-1]} scores\n\n{HEADER}", flush=True)
    lines = []
    for mix in MIXES:
        lines.append(measure(mix, prompts, steps, arguments.rounds))
        print(lines[-1].markdown(), flush=True)
    return int(any(line.num_equal != line.num_tokens for line in lines))


if __name__ == "__main__":
    sys.exit(main())
