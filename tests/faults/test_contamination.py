"""Everything at once: no answer holds anything of another's request (R16)."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from lockstep_client import Lockstep
from lockstep_client.exceptions import Overloaded
from tests.checkpoint_factory import make_checkpoint
from tests.faults.oracle import Asked, Oracle
from tests.faults.test_disconnects import KINDS, leaver
from tests.faults.watch import leaving_nothing
from tests.services import running_services

NUM_CALLERS = 8


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contamination")
    # Room for few sessions, so that idle ones lose their places.
    flags = ("--stream-stall-timeout-s", "2", "--max-kv-tokens", "6000")
    with running_services(make_checkpoint(folder / "tiny"), folder, model_flags=flags) as running:
        yield running


class Callers:
    """Calls of every kind, and whose answers were not what they are alone."""

    def __init__(self, ls: Lockstep, oracle: Oracle) -> None:
        self._ls = ls
        self._oracle = oracle
        self.made: Counter[str] = Counter()
        self.wrong: list[Asked] = []

    def call(self, seed: int) -> None:
        rng = random.Random(seed)
        kind = rng.choice(["generate", "generate", "stream", "batch", "session", "left"])
        try:
            getattr(self, f"_{kind}")(rng)
        except Overloaded:
            kind = "refused"
        self.made[kind] += 1

    def _check(self, asked: Asked, tokens: list[int]) -> None:
        if list(tokens) != self._oracle.answer(asked)[: len(tokens)]:
            self.wrong.append(asked)

    def _settings(self, asked: Asked) -> dict:
        return {
            "max_new_tokens": asked.new_tokens,
            "repetition_penalty": asked.penalty,
            "eos_token_id": [],
        }

    def _generate(self, rng: random.Random) -> None:
        asked = self._oracle.draw(rng)
        made = self._ls.model.generate([list(asked.prompt)], **self._settings(asked))
        assert len(made.sequences[0]) == asked.new_tokens
        self._check(asked, made.sequences[0])

    def _batch(self, rng: random.Random) -> None:
        asked = [self._oracle.draw(rng) for _ in range(3)]
        settings = self._settings(asked[0])
        like = [Asked(each.prompt, asked[0].new_tokens, asked[0].penalty) for each in asked]
        made = self._ls.model.generate([list(each.prompt) for each in like], **settings)
        for each, sequence in zip(like, made.sequences, strict=True):
            self._check(each, sequence)

    def _stream(self, rng: random.Random) -> None:
        self._read(rng, 10**6)

    def _left(self, rng: random.Random) -> None:
        self._read(rng, rng.randrange(10))

    def _read(self, rng: random.Random, most: int) -> None:
        asked = self._oracle.draw(rng)
        tokens: list[int] = []
        with self._ls.model.stream([list(asked.prompt)], **self._settings(asked)) as stream:
            for delta in stream:
                tokens += delta.token_ids
                if len(tokens) > most:
                    break
        self._check(asked, tokens)

    def _session(self, rng: random.Random) -> None:
        """Steps through an answer token by token, each chosen here."""
        asked = self._oracle.draw(rng)
        plain = Asked(asked.prompt, min(asked.new_tokens, 12), 1.0)
        tokens: list[int] = []
        with self._ls.model.open_session([list(plain.prompt)]) as session:
            while True:
                tokens.append(int(session.logits[0].argmax()))
                if len(tokens) == plain.new_tokens:
                    break
                session.step([tokens[-1]])
        self._check(plain, tokens)


# The 10,000 calls of the full size, in pieces that can be run one by one.
PIECES = [range(first, first + 2_500) for first in range(0, 10_000, 2_500)]


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(300), id="ci"),
        *(
            pytest.param(
                piece,
                id=f"full-{number}",
                marks=[pytest.mark.full, pytest.mark.timeout(7200)],
            )
            for number, piece in enumerate(PIECES, 1)
        ),
    ],
)
def test_every_answer_is_what_it_is_alone(services, seeds):
    oracle = Oracle(services.checkpoint)
    with (
        services.client() as ls,
        leaving_nothing(services.model),
        leaver(services) as leaves,
        ThreadPoolExecutor(NUM_CALLERS) as pool,
    ):
        callers, over = Callers(ls, oracle), threading.Event()

        def leave() -> None:
            rng = random.Random(1)
            while not over.is_set():
                leaves.leave(rng.choice(KINDS), rng.randrange(10**6))

        leaving = threading.Thread(target=leave)
        leaving.start()
        try:
            for done in [pool.submit(callers.call, seed) for seed in seeds]:
                done.result()
        finally:
            over.set()
            leaving.join()
    print(f"\n{dict(callers.made)}, left meanwhile {dict(leaves.left)}")
    assert callers.wrong == []
    assert sum(callers.made.values()) - callers.made["refused"] > len(seeds) / 2
