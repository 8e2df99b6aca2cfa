"""`python -m bench.weight_accuracy`: what weights in int8 do to the results of a model.

The same text passes through three engines: with the weights as they are in bfloat16, with those
rounded to int8, and in float32. Perplexity is that of the text; the rest compares each position's
logits with those of bfloat16.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from bench import command
from bench.local_engine import LocalEngine
from model_service.engine.run.runner import CachingRunner
from model_service.engine.run.trial_sequences import TrialSequences
from model_service.engine.sequences.run import Run

TEXT = Path(__file__).parents[1] / "docs" / "decisions.md"

HEADER = (
    "| weights | perplexity | against bf16 | top-1 equal | mean difference / deviation |\n"
    "|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One kind of weights.

    Attributes:
        perplexity: of the text.
        agreement: share of positions with the same most likely token.
        difference: mean difference of a position's logits, in standard deviations of them.
    """

    perplexity: float
    agreement: float
    difference: float


@torch.inference_mode()
def logits_of(runner: CachingRunner, ids: list[int]) -> Tensor:
    """Passes a text through a model at once; returns `[tokens, V]` float32."""
    with TrialSequences(runner) as trial:
        positions = tuple(range(len(ids)))
        return runner.forward([Run(trial.sequence(ids), len(ids), positions)])


@torch.inference_mode()
def compare(runner: CachingRunner, reference: CachingRunner, pieces: list[list[int]]) -> Accuracy:
    """Compares a model with another on pieces of a text."""
    loss = 0.0
    equal: list[Tensor] = []
    differences: list[Tensor] = []
    for ids in pieces:
        logits, expected = logits_of(runner, ids), logits_of(reference, ids)
        targets = torch.tensor(ids[1:])
        loss += float(torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="sum"))
        equal.append(logits.argmax(-1) == expected.argmax(-1))
        differences.append((logits - expected).abs().mean(-1) / expected.std(-1))
    count = sum(len(ids) - 1 for ids in pieces)
    return Accuracy(
        perplexity=math.exp(loss / count),
        agreement=float(torch.cat(equal).float().mean()),
        difference=float(torch.cat(differences).mean()),
    )


def cut(arguments: argparse.Namespace) -> list[list[int]]:
    """Returns pieces of the text, as ids of the model's tokenizer."""
    tokenizer = Tokenizer.from_file(str(command.folder(arguments) / "tokenizer.json"))
    ids = tokenizer.encode(arguments.text.read_text()).ids
    length = arguments.piece_tokens
    starts = range(0, len(ids) - length + 1, length)
    return [ids[start : start + length] for start in starts][: arguments.pieces]


def main() -> None:
    """Reads the arguments, measures and prints the table."""
    parser = command.parser("bench.weight_accuracy", __doc__, rounds=1)
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--piece-tokens", type=int, default=512)
    parser.add_argument("--pieces", type=int, default=12)
    arguments = command.parse(parser)
    folder, pieces = command.folder(arguments), cut(arguments)
    print(f"{len(pieces)} pieces of {arguments.piece_tokens} tokens\n\n{HEADER}", flush=True)
    reference = LocalEngine(folder, "bfloat16")
    kinds: dict[str, tuple[str, Literal["auto", "int8"]]] = {
        "bf16": ("bfloat16", "auto"),
        "fp32": ("float32", "auto"),
        "int8 in bf16": ("bfloat16", "int8"),
        "int8 in fp32": ("float32", "int8"),
    }
    base = 0.0
    for name, (dtype, weights) in kinds.items():
        engine = reference
        if name != "bf16":
            engine = LocalEngine(folder, dtype, weights=weights)
        found = compare(engine.runner, reference.runner, pieces)
        base = base or found.perplexity
        print(
            f"| {name} | {found.perplexity:.2f} | {found.perplexity / base - 1:+.1%} | "
            f"{found.agreement:.1%} | {found.difference:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
