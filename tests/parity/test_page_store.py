"""Keys and values in pages, as on a GPU, against slots: the same tokens and logits to the bit."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from model_service.engine.load.loader import DoesNotFit, Unavailable
from model_service.engine.run import paged_attention
from model_service.engine.schedule.prefill import PrefillClock
from model_service.engine.trial import attention_choice
from model_service.protocol import Generate, NewRow, SequenceSpec
from tests.checkpoint_factory import VOCABULARY_SIZE, make_checkpoint
from tests.correctness.engine_session import FULL, EngineSession
from tests.engine_harness import InprocEngine, array, scores_of, tokens_of
from tests.paged_store import in_pages

from .test_growth import grow

NEW = 12


def prompts(seed: int, lengths: list[int]) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(VOCABULARY_SIZE) for _ in range(length)] for length in lengths]


BOOK, *OTHERS = prompts(1, [70, 3, 16, 33, 20])


@pytest.fixture(scope="module", params=["llama", "mistral", "gemma3"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = make_checkpoint(tmp_path_factory.mktemp("pages") / "model", request.param)
    settings = {
        "dtype": "float32",
        "max_running_sequences": 3,
        "max_session_rows": 8,
        "attention": "sdpa",
    }
    slots = InprocEngine(folder, **settings)
    with in_pages():
        pages = InprocEngine(folder, **settings)
    cache = pages.engine._runner.cache
    assert cache.is_paged
    for engine in (slots, pages):  # every prompt in one step, however long the steps take
        engine.engine._scheduler._clock = PrefillClock(1.0)
    yield slots, pages
    slots.engine._places.flush()
    pages.engine._places.flush()
    assert cache.table.num_free == cache.table.num_pages - 1
    for part in cache.parts:
        assert not part.data.any()


def generate(engine: InprocEngine, texts: list[list[int]], **arguments: object):
    """Returns the tokens of several calls, and their logits one after the other."""
    ids = []
    for index, text in enumerate(texts):
        engine._next_id += 1
        ids.append(engine._next_id)
        engine.handle(
            Generate(
                [SequenceSpec(text, index)],
                engine.config(max_new_tokens=NEW),
                request_id=engine._next_id,
                **{"revision": 0, "selection": FULL, "cache_salt": "", **arguments},
            )
        )
    events = engine.drain()
    tokens = [tokens_of(events, request_id, 1)[0] for request_id in ids]
    return tokens, [array(p.logits) for request_id in ids for p in scores_of(events, request_id)]


def check(engines: tuple[InprocEngine, InprocEngine], act: Callable[[InprocEngine], object]):
    slots, pages = (act(engine) for engine in engines)
    assert slots[0] == pages[0]
    for row, same in zip(slots[1], pages[1], strict=True):
        np.testing.assert_array_equal(row, same)


def test_ragged_batches_and_reused_prefixes_are_equal(engines):
    for length in (16, 17, 32, 70):
        check(engines, lambda engine, n=length: generate(engine, [BOOK[:n] + OTHERS[0], *OTHERS]))
    hits = [engine.engine._places.num_hit_tokens for engine in engines]
    assert hits[0] == hits[1] >= 16 + 16 + 32


def test_sequences_that_lost_their_places_are_equal(engines):
    def act(engine: InprocEngine):
        scheduler = engine.engine._scheduler
        before, ids, events = scheduler.num_preempted, [], []
        scheduler._waiting._num_taken = 0
        for index, text in enumerate([BOOK, *OTHERS]):  # each goes before those there are
            ids.append(
                engine.submit([text], selection=FULL, max_new_tokens=NEW)
                if index == 0
                else _urgent(engine, text, -index)
            )
            events += engine.step() or []
        events += engine.drain()
        assert scheduler.num_preempted > before
        logits = [array(p.logits) for request in ids for p in scores_of(events, request)]
        return [tokens_of(events, request, 1) for request in ids], logits

    check(engines, act)


def _urgent(engine: InprocEngine, text: list[int], priority: int) -> int:
    engine._next_id += 1
    engine.handle(
        Generate(
            [SequenceSpec(text, 0)],
            engine.config(max_new_tokens=NEW),
            revision=0,
            selection=FULL,
            priority=priority,
            cache_salt=None,
            request_id=engine._next_id,
        )
    )
    return engine._next_id


def test_sessions_that_fork_and_forget_are_equal(engines):
    def act(engine: InprocEngine):
        session = EngineSession(engine)
        answers = [session.open([BOOK[:40], OTHERS[1]], max_length=90)]
        fork = session.fork([0, 0, 1])
        answers.append(fork.step([[1, 2, 3], [4], [5]]))
        session.truncate([17, 5])
        answers.append(session.step([[9, 8], [7]]))
        answers.append(fork.step([[1], [1], [1]]))
        fork.select([2, 0])
        answers.append(fork.step([[6], [6]]))
        tokens = [session.rows(), fork.rows()]
        session.close()
        fork.close()
        logits = [array(p.logits) for a in answers for row in a.rows for p in row.scores]
        return tokens, logits

    check(engines, act)


def test_rows_that_grow_while_sequences_run_are_equal(engines):
    revisions = []

    def act(engine: InprocEngine):
        size = engine.engine._runner.vocabulary.size
        request_id = engine.submit([BOOK, OTHERS[2]], selection=FULL, max_new_tokens=NEW)
        events = (engine.step() or []) + (engine.step() or [])
        grow(engine, [NewRow(size, "mean", True)], 1)
        events += engine.drain()
        tokens, logits = generate(engine, [[size, *OTHERS[1]]], revision=1)
        revisions.append(engine.engine._runner.vocabulary.size)
        before = [array(p.logits) for row in (0, 1) for p in scores_of(events, request_id, row)]
        return [tokens_of(events, request_id, 2), tokens], before + logits

    check(engines, act)
    assert revisions == [VOCABULARY_SIZE + 1] * 2


def test_the_kernel_for_gpus_gives_the_engines_logits(tmp_path):
    folder = make_checkpoint(tmp_path / "model", "gemma3")  # windows, and a scale of its own
    settings = {"dtype": "float32", "max_running_sequences": 3, "max_session_rows": 8}
    with in_pages():
        gathered = InprocEngine(folder, **settings, attention="sdpa")
        in_place = InprocEngine(folder, **settings, attention="triton")
    assert gathered.info.attention == "lockstep_slots"
    assert in_place.info.attention == "lockstep_slots_triton"
    texts = [BOOK[:23], OTHERS[0], BOOK[:40]]
    slow, fast = (generate(engine, texts) for engine in (gathered, in_place))
    assert slow[0] == fast[0]
    for row, same in zip(slow[1], fast[1], strict=True):
        np.testing.assert_allclose(row, same, rtol=1e-4, atol=1e-5)


def test_a_kernel_that_is_wrong_is_not_used(tmp_path, monkeypatch, caplog):
    folder = make_checkpoint(tmp_path / "model", "llama")
    right = paged_attention.attend
    monkeypatch.setattr(paged_attention, "attend", lambda *a, **k: right(*a, **k) * 1.01)
    with in_pages():
        engine = InprocEngine(folder, dtype="float32", max_running_sequences=3)
        assert engine.info.attention == "lockstep_slots"
        assert "results differ from torch's" in caplog.text
        with pytest.raises(Unavailable, match="--attention triton does not work here"):
            InprocEngine(folder, dtype="float32", max_running_sequences=3, attention="triton")


@pytest.mark.parametrize("error", [torch.AcceleratorError, torch.OutOfMemoryError])
def test_a_device_that_fails_in_the_trial_of_the_kernel_is_not_taken_for_a_wrong_kernel(
    tmp_path, monkeypatch, error
):
    def fail(*arguments: object, **options: object) -> None:
        raise error("it failed")

    folder = make_checkpoint(tmp_path / "model", "llama")
    monkeypatch.setattr(attention_choice, "check_kernel", lambda *arguments: None)
    monkeypatch.setattr(paged_attention, "attend", fail)
    with in_pages(), pytest.raises(DoesNotFit):
        InprocEngine(folder, dtype="float32", max_running_sequences=3)
