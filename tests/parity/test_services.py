"""Greedy tokens through the real model service against `generate`, float32, seven architectures."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bench.contender import Contender, environment
from lockstep_client import Lockstep, LockstepError
from lockstep_client._transport.patience import Patience
from tests.checkpoint_factory import ARCHITECTURES, VOCABULARY_SIZE
from tests.services import running_process

from .conftest import Pair

LENGTHS = (1, 5, 23, 12, 40, 9)
NEW = 10
GREEDY = {"do_sample": False, "eos_token_id": []}


@dataclass
class Served:
    """A checkpoint in Hugging Face's hands, and a client of the service that serves it."""

    pair: Pair
    client: Lockstep
    address: str

    def expected(self, prompts: list[list[int]]) -> list[list[int]]:
        return [self.pair.generate(prompt, NEW).token_ids for prompt in prompts]


def wait_until_loaded(client: Lockstep) -> None:
    patience = Patience(60)
    while True:
        try:
            client.model.info()
            return
        except LockstepError as error:
            time.sleep(patience.pause_s(error))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def served(request, pair_of, tmp_path_factory) -> Iterator[Served]:
    """One architecture in Hugging Face's hands and in the service's."""
    pair = pair_of(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    flags = (f"--model={pair.folder}", "--dtype=fp32", "--threads=1")
    with (
        running_process("model_service", *flags, folder=folder) as service,
        Lockstep(model=service.address, tokenizer=service.address) as client,
    ):
        wait_until_loaded(client)
        yield Served(pair, client, service.address)


def make_prompts() -> list[list[int]]:
    generator = random.Random(5)
    return [[generator.randrange(VOCABULARY_SIZE) for _ in range(n)] for n in LENGTHS]


def padded(prompts: list[list[int]], side: str) -> dict[str, np.ndarray]:
    """Pads as Hugging Face's documentation does, independent of ours."""
    width = max(map(len, prompts))
    ids, masks = [], []
    for prompt in prompts:
        fill = width - len(prompt)
        left, right = (fill, 0) if side == "left" else (0, fill)
        ids.append([7] * left + prompt + [7] * right)
        masks.append([0] * left + [1] * len(prompt) + [0] * right)
    mask = np.array(masks)
    positions = np.where(mask == 1, mask.cumsum(-1) - 1, 1)
    return {"input_ids": np.array(ids), "attention_mask": mask, "position_ids": positions}


def sequences(generation) -> list[list[int]]:
    return [list(row) for row in generation.sequences]


@pytest.mark.parametrize("form", ["ragged", "left", "right"])
def test_a_batch_in_any_form_gives_what_each_prompt_gives_alone(served, form):
    prompts = make_prompts()
    batch = prompts if form == "ragged" else padded(prompts, form)
    out = served.client.model.generate(batch, max_new_tokens=NEW, **GREEDY)
    assert sequences(out) == served.expected(prompts)


def test_calls_at_the_same_time_give_what_each_gives_alone(served):
    prompts = make_prompts() * 2

    def run(prompt: list[int]) -> list[int]:
        return sequences(served.client.model.generate([prompt], max_new_tokens=NEW, **GREEDY))[0]

    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(run, prompts)) == served.expected(prompts)


def test_logits_of_a_padded_batch_are_those_of_each_prompt_alone(served):
    prompts = make_prompts()
    out = served.client.model.generate(
        padded(prompts, "left"), max_new_tokens=NEW, output_logits=True, **GREEDY
    )
    for row, prompt in enumerate(prompts):
        expected = served.pair.generate(prompt, NEW).logits
        scale = max(1.0, float(expected.abs().max()))
        difference = (torch.from_numpy(out.logits[row].copy()) - expected).abs().max()
        assert float(difference) <= 1e-5 * scale


def test_32_streams_from_another_process_give_what_each_gives_alone(served):
    generator = random.Random(11)
    prompts = [
        [generator.randrange(VOCABULARY_SIZE) for _ in range(generator.randint(1, 60))]
        for _ in range(32)
    ]
    together = {"prompts": prompts, "new_tokens": NEW, "arrivals_s": [0.0] * len(prompts)}
    with Contender(
        "streams", "bench.peers.lockstep", [served.address], variables=environment(1)
    ) as other:
        answer = other.ask(together)
    assert answer["token_ids"] == served.expected(prompts)
