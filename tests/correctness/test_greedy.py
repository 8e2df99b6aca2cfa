"""Greedy tokens against `generate`, float32, whatever else runs and whenever it arrives.

`generate` sees prompts of one length at a time, so that nothing is padded there.
A difference counts unless the two best logits at its place lie closer than 1e-4:
then neither token is wrong.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

import checkpoints
from tests.checkpoint_factory import ARCHITECTURES, VOCABULARY_SIZE
from tests.engine_harness import InprocEngine
from tests.pairs import Pair

from .arrivals import Arrivals

ROOT = Path(__file__).parent.parent.parent
NEAR_TIE = 1e-4


def reference(model: PreTrainedModel, prompts: list[list[int]], new: int) -> list[list[int]]:
    """What `generate` gives for each prompt: prompts of equal length together, unpadded."""
    groups = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[len(prompt)].append(index)
    expected: list[list[int]] = [[] for _ in prompts]
    for members in groups.values():
        ids = torch.tensor([prompts[index] for index in members])
        with torch.inference_mode():
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        for index, row in zip(members, output[:, ids.shape[1] :].tolist(), strict=True):
            expected[index] = row
    return expected


def mismatches(
    model: PreTrainedModel,
    prompts: list[list[int]],
    got: list[list[int]],
    expected: list[list[int]],
) -> tuple[list[int], int]:
    """Returns the prompts whose tokens are wrong, and how many met a near tie instead."""
    wrong, ties = [], 0
    for index, (prompt, ours, theirs) in enumerate(zip(prompts, got, expected, strict=True)):
        if ours == theirs:
            continue
        assert len(ours) == len(theirs)
        place = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + theirs[:place]])).logits[0, -1]
        best = logits.topk(2)
        if best.values[0] - best.values[1] < NEAR_TIE and ours[place] in best.indices.tolist():
            ties += 1
        else:
            wrong.append(index)
    return wrong, ties


def check(
    model: PreTrainedModel,
    engine: InprocEngine,
    prompts: list[list[int]],
    new: int,
    record: Callable[[str, object], None],
) -> None:
    expected = reference(model, prompts, new)
    arrivals = Arrivals(engine, new, most_at_once=32, seed=len(prompts))
    got = arrivals.run(prompts)
    wrong, ties = mismatches(model, prompts, got, expected)
    figures = {
        "prompts": len(prompts),
        "new_tokens": new,
        "mismatches": len(wrong),
        "near_ties": ties,
        "cancelled_strangers": arrivals.cancelled,
        "most_rows": arrivals.most_rows,
    }
    for name, value in figures.items():
        record(name, value)
    print(figures)
    assert arrivals.cancelled > 0
    assert arrivals.most_rows >= min(len(prompts), 20)
    assert wrong == []
    assert ties <= len(prompts) // 100


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("num_prompts", "new"),
    [
        pytest.param(60, 24, id="60-prompts"),
        pytest.param(
            500, 64, id="500-prompts", marks=[pytest.mark.full, pytest.mark.timeout(1800)]
        ),
    ],
)
def test_random_models_give_the_tokens_of_generate(
    architecture, num_prompts, new, pair_of, record_property
):
    generator = random.Random(num_prompts)
    lengths = [
        generator.choice((1, 2, 3, 5, 8, 9, 17, 33, 64, 100, 150)) for _ in range(num_prompts)
    ]
    prompts = [[generator.randrange(VOCABULARY_SIZE) for _ in range(n)] for n in lengths]
    pair: Pair = pair_of(architecture)
    engine = InprocEngine(pair.folder, max_running_sequences=40, dtype="float32")
    check(pair.model, engine, prompts, new, record_property)


@pytest.fixture(scope="module")
def default_model() -> PreTrainedModel:
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def texts() -> Iterator[str]:
    """What this repository says about itself: prose, code and tables."""
    for path in sorted(
        [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("protos/**/*.proto")]
    ):
        yield path.read_text(encoding="utf-8")


def real_prompts(num_prompts: int, lengths: tuple[int, ...]) -> list[list[int]]:
    """Cuts pieces of real text, of these lengths in tokens, at random places."""
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("\n\n".join(texts())).ids
    generator = random.Random(num_prompts)
    pieces = []
    for index in range(num_prompts):
        length = lengths[index % len(lengths)]
        start = generator.randrange(len(ids) - length)
        pieces.append(ids[start : start + length])
    return pieces


@pytest.mark.default_model
@pytest.mark.parametrize(
    ("num_prompts", "new", "lengths"),
    [
        pytest.param(16, 16, (1, 7, 40, 130), id="16-prompts", marks=pytest.mark.timeout(300)),
        pytest.param(
            500,
            64,
            (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1500, 2500, 4, 16, 100),
            id="500-prompts",
            marks=[pytest.mark.full, pytest.mark.timeout(5400)],
        ),
    ],
)
def test_the_default_model_gives_the_tokens_of_generate(
    num_prompts, new, lengths, default_model, record_property
):
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    engine = InprocEngine(
        folder, max_running_sequences=40, dtype="float32", max_context_tokens=4096
    )
    check(default_model, engine, real_prompts(num_prompts, lengths), new, record_property)
