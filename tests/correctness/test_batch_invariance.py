"""A request gives the same alone and among strangers, float32."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from model_service.protocol import Cancel, Event
from model_service.protocol.generation import ScoreSelection
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import InprocEngine, array, scores_of, tokens_of
from tests.pairs import Pair

from .engine_session import EngineSession

BOUND = 1e-4
NEW = 12
LOGITS = ScoreSelection(logits=True, amount="full", positions="new")

IDS = st.integers(0, VOCABULARY_SIZE - 1)
PROMPT = st.lists(IDS, min_size=1, max_size=48)
CONFIG = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "do_sample": st.just(True),
            "temperature": st.sampled_from([0.7, 1.0, 1.5]),
            "top_k": st.sampled_from([0, 5, 50]),
            "top_p": st.sampled_from([0.8, 1.0]),
        }
    ),
)


@dataclass(frozen=True)
class Stranger:
    """Somebody else's request.

    Attributes:
        prompt: its prompt, behind what it shares.
        shares: tokens that it has in common with the request, whose keys and values
            may be reused.
        new: its new tokens.
        arrives: step of the engine before which it arrives.
        stays: steps until it is cancelled; None when it is not.
    """

    prompt: list[int]
    shares: int
    new: int
    arrives: int
    stays: int | None


STRANGERS = st.lists(
    st.builds(
        Stranger,
        prompt=PROMPT,
        shares=st.sampled_from([0, 0, 20, 40]),
        new=st.integers(1, 20),
        arrives=st.integers(0, 12),
        stays=st.none() | st.integers(0, 10),
    ),
    min_size=1,
    max_size=31,
)


def run(
    engine: InprocEngine,
    prompt: list[int],
    seed: int,
    config: dict,
    strangers: list[Stranger] = (),
    joins: int = 0,
) -> tuple[list[int], torch.Tensor]:
    """Runs a request that joins at a step; returns its tokens and logits `[T, V]`.

    Alone it computes everything itself; among strangers it may reuse.
    """
    salt = "" if strangers else None
    events: list[Event] = []
    request_id, leaving = None, {}
    for step in range(10_000):
        for stranger in strangers:
            if stranger.arrives == step:
                stranger_id = engine.submit(
                    [prompt[: stranger.shares] + stranger.prompt],
                    cache_salt=salt,
                    do_sample=True,
                    max_new_tokens=stranger.new,
                    top_k=0,
                )
                if stranger.stays is not None:
                    leaving.setdefault(step + stranger.stays, []).append(stranger_id)
        if step == joins:
            request_id = engine.submit(
                [prompt],
                seeds=[seed],
                selection=LOGITS,
                cache_salt=salt,
                max_new_tokens=NEW,
                **config,
            )
        for stranger_id in leaving.pop(step, []):
            engine.handle(Cancel(stranger_id))
        found = engine.step()
        events += found or []
        if found is None and step >= max(joins, *(s.arrives for s in strangers), 0):
            break
    scores = scores_of(events, request_id)
    logits = torch.stack([torch.from_numpy(array(s.logits)) for s in scores])
    return tokens_of(events, request_id, 1)[0], logits


@pytest.fixture(scope="module")
def engine_of(pair_of: Callable[[str], Pair]) -> Callable[[str], InprocEngine]:
    engines: dict[str, InprocEngine] = {}

    def get(architecture: str) -> InprocEngine:
        if architecture not in engines:
            engines[architecture] = InprocEngine(
                pair_of(architecture).folder,
                max_running_sequences=32,
                max_session_rows=4,
                dtype="float32",
            )
        return engines[architecture]

    return get


def sized(examples: int, full: int):
    return pytest.mark.parametrize(
        "examples",
        [
            pytest.param(examples, id="ci"),
            pytest.param(full, id="full", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
        ],
    )


def checked(examples: int):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt2"])
@sized(8, 300)
def test_strangers_do_not_change_a_request(architecture, examples, engine_of, record_property):
    engine = engine_of(architecture)
    seen = {"requests": 0, "strangers": 0, "largest": 0.0, "different_tokens": 0}

    @checked(examples)
    @given(
        prompt=PROMPT,
        seed=st.integers(0, 2**63 - 1),
        config=CONFIG,
        strangers=STRANGERS,
        joins=st.integers(0, 15),
    )
    @example(  # which begins with what a stranger has computed
        prompt=list(range(40)),
        seed=1,
        config={},
        strangers=[Stranger([7], shares=40, new=20, arrives=0, stays=None)] * 2,
        joins=5,
    )
    def same(prompt, seed, config, strangers, joins):
        tokens, logits = run(engine, prompt, seed, config)
        among, among_logits = run(engine, prompt, seed, config, strangers, joins)
        seen["requests"] += 1
        seen["strangers"] += len(strangers)
        seen["different_tokens"] += tokens != among
        assert among == tokens
        difference = float((among_logits - logits).abs().max())
        seen["largest"] = max(seen["largest"], difference)
        assert difference <= BOUND

    same()
    seen["reused_tokens"] = engine.engine._scheduler._places.num_hit_tokens
    for name, value in seen.items():
        record_property(name, value)
    print(architecture, seen)
    assert seen["strangers"] > seen["requests"]
    assert seen["reused_tokens"] > 0


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt2"])
@sized(8, 200)
def test_strangers_do_not_change_the_steps_of_a_session(
    architecture, examples, engine_of, record_property
):
    engine = engine_of(architecture)
    seen = {"sessions": 0, "steps": 0, "largest": 0.0}

    @checked(examples)
    @given(
        prompt=PROMPT,
        steps=st.lists(st.lists(IDS, min_size=1, max_size=4), min_size=1, max_size=6),
        strangers=STRANGERS,
    )
    def same(prompt, steps, strangers):
        alone, among = EngineSession(engine), EngineSession(engine)
        alone.open([prompt])
        expected = [alone.step([ids]) for ids in steps]
        alone.close()
        running = []
        for stranger in strangers:
            running.append(engine.submit([stranger.prompt], max_new_tokens=40))
        for _ in range(3):
            engine.step()
        among.open([prompt])
        got = []
        for index, ids in enumerate(steps):
            for stranger in strangers:  # who comes while it steps
                if stranger.arrives == index:
                    running.append(engine.submit([stranger.prompt], max_new_tokens=5))
            got.append(among.step([ids]))
        for request_id in running:
            engine.handle(Cancel(request_id))
        among.close()
        for ours, theirs in zip(got, expected, strict=True):
            rows = [torch.from_numpy(array(a.rows[0].scores[0].logits)) for a in (ours, theirs)]
            difference = float((rows[0] - rows[1]).abs().max())
            seen["largest"] = max(seen["largest"], difference)
            assert difference <= BOUND
        seen["sessions"] += 1
        seen["steps"] += len(steps)

    same()
    for name, value in seen.items():
        record_property(name, value)
    print(architecture, seen)
    assert seen["steps"] >= seen["sessions"] >= examples // 2


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt2"])
@sized(6, 100)
def test_a_session_that_lost_its_place_goes_on_as_if_it_had_not(
    architecture, examples, pair_of: Callable[[str], Pair], record_property
):
    engine = InprocEngine(
        pair_of(architecture).folder,
        max_running_sequences=4,
        max_session_rows=4,
        max_kv_tokens=250,
        dtype="float32",
    )
    seen = {"sessions": 0, "steps": 0, "recomputed": 0, "largest": 0.0}

    @checked(examples)
    @given(
        prompt=PROMPT,
        steps=st.lists(st.lists(IDS, min_size=1, max_size=3), min_size=1, max_size=4),
        stranger=st.lists(IDS, min_size=40, max_size=40),
    )
    def same(prompt, steps, stranger):
        alone, robbed = EngineSession(engine), EngineSession(engine)
        alone.open([prompt])
        expected = [alone.step([ids]) for ids in steps]
        alone.close()
        robbed.open([prompt])
        for ids, theirs in zip(steps, expected, strict=True):
            engine.generate([stranger], max_new_tokens=200)  # there is no room beside it
            ours = robbed.step([ids])
            assert ours.recomputed
            rows = [torch.from_numpy(array(a.rows[0].scores[0].logits)) for a in (ours, theirs)]
            difference = float((rows[0] - rows[1]).abs().max())
            seen["largest"] = max(seen["largest"], difference)
            assert difference <= BOUND
            seen["recomputed"] += 1
        robbed.close()
        seen["sessions"] += 1
        seen["steps"] += len(steps)

    same()
    for name, value in seen.items():
        record_property(name, value)
    print(architecture, seen)
    assert seen["recomputed"] == seen["steps"] >= examples // 2
