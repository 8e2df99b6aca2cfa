"""A seed gives the same tokens whatever else runs, whenever it arrives, in any engine."""

import random

from model_service.protocol import Cancel
from tests.correctness.sizes import sizes
from tests.engine_harness import InprocEngine, tokens_of

NEW = 8
CONFIGS = [
    {"top_k": 50},
    {"top_k": 0},
    {"top_k": 0, "top_p": 0.9, "temperature": 1.5},
    {"top_k": 20, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    {"top_k": 0, "typical_p": 0.8, "frequency_penalty": 0.5},
    {"top_k": 0, "min_p": 0.05, "seed_mode": "torch"},
]


def requests(count: int) -> list[dict]:
    """One request per seed, of many lengths and configurations."""
    generator = random.Random(1)
    return [
        {
            "prompts": [[generator.randrange(300) for _ in range(generator.randrange(1, 40))]],
            "seeds": [generator.randrange(2**63)],
            "do_sample": True,
            "max_new_tokens": NEW,
            **CONFIGS[index % len(CONFIGS)],
        }
        for index in range(count)
    ]


def run_in_disorder(engine: InprocEngine, wanted: list[dict], seed: int) -> list[list[int]]:
    """Runs requests in random order between steps, among strangers that are cancelled."""
    generator = random.Random(seed)
    waiting = generator.sample(range(len(wanted)), len(wanted))
    names: dict[int, int] = {}
    strangers: list[int] = []
    events = []
    while True:
        for _ in range(min(len(waiting), generator.randrange(6))):
            index = waiting.pop()
            names[index] = engine.submit(**wanted[index])
        if waiting and generator.random() < 0.3:
            strangers.append(engine.submit([[1, 2, 3]], max_new_tokens=50))
        if strangers and generator.random() < 0.3:
            engine.handle(Cancel(strangers.pop()))
        step = engine.step()
        events += step or []
        if step is None and not waiting:
            return [tokens_of(events, names[index], 1)[0] for index in range(len(wanted))]


@sizes("size", {"seeds": 12, "schedules": 3}, {"seeds": 200, "schedules": 10})
def test_seeds_give_the_same_tokens_in_every_schedule_and_engine(pair_of, size):
    pair = pair_of("llama")
    wanted = requests(size["seeds"])
    alone = [pair.engine.generate(**request)[0] for request in wanted]
    assert len(set(map(tuple, alone))) > len(alone) / 2
    for schedule in range(size["schedules"]):
        engine = pair.engine
        if schedule % 2:  # another process, with another number of places
            engine = InprocEngine(pair.folder, max_running_sequences=3 + schedule)
        assert run_in_disorder(engine, wanted, schedule) == alone
