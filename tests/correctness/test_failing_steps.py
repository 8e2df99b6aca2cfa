"""Memory that runs out amid steps: tokens of all others are those without it, float32."""

import random

import pytest
import torch

from model_service.protocol import SequenceTokens
from tests.engine_harness import InprocEngine, tokens_of
from tests.parity.test_placement import MODELS, PATHS, save

from .sizes import sizes

POISON = 63
SHARE = 0.05  # of steps in which memory runs out for all
CONFIGS = ({}, {"do_sample": True, "temperature": 0.9, "top_p": 0.9})


class Shortage:
    """Raises in the second layer: the first has written the keys and values of the step."""

    def __init__(self, engine: InprocEngine) -> None:
        self.count, self._random, self._due = 0, random.Random(1), False
        model = engine.engine._runner._model
        (layers,) = (part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
        model.register_forward_pre_hook(self._look, with_kwargs=True)
        layers[1].register_forward_pre_hook(self._raise)

    def _look(self, module, arguments, keywords):
        ids = keywords["input_ids"]
        passes = not self._due and self._random.random() < SHARE  # after it, there is room
        self._due = bool((ids == POISON).any()) or passes

    def _raise(self, module, arguments):
        if self._due:
            self.count += 1
            raise torch.OutOfMemoryError("not enough")


def run(engine: InprocEngine, prompts: list[list[int]]) -> list[tuple[list[int], str]]:
    """Returns tokens and the reason of the failure of every prompt. They arrive bit by bit."""
    ids, events = [], []
    for index, prompt in enumerate(prompts):
        config = {"max_new_tokens": 6, "suppress_tokens": (POISON,), **CONFIGS[index % 2]}
        ids.append(engine.submit([prompt], seeds=[index], cache_salt="", **config))
        events += engine.step() or []
    events += engine.drain()
    ends = {
        event.request_id: event.finish.failure.error
        for event in events
        if isinstance(event, SequenceTokens) and event.finish and event.finish.failure
    }
    return [(tokens_of(events, one, 1)[0], ends.get(one, "")) for one in ids]


@pytest.mark.parametrize("architecture", ["llama", "gptj"])
@sizes("requests", 60, 2_000)
def test_memory_that_runs_out_ends_who_caused_it_and_changes_nobody_elses_tokens(
    architecture, requests, tmp_path
):
    generator = random.Random(0)
    prompts = [
        [generator.randrange(POISON) for _ in range(generator.randrange(2, 30))]
        for _ in range(requests)
    ]
    for poisoned in prompts[5::10]:
        poisoned[-1] = POISON
    folder = save(MODELS[architecture](), tmp_path)
    expected = run(InprocEngine(folder), prompts)
    engine = InprocEngine(folder)
    assert engine.info.execution_path == PATHS[architecture]
    shortage = Shortage(engine)
    got = run(engine, prompts)
    assert shortage.count > requests / 10
    for prompt, ours, theirs in zip(prompts, got, expected, strict=True):
        if POISON in prompt:
            assert ours == ([], "MemoryExhausted")
        else:
            assert ours == theirs
    assert engine.engine._places.used_tokens == 0
