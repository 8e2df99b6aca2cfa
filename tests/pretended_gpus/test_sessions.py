"""Sessions and growth on one GPU and on two: the answers of the CPU."""

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest

from model_service.protocol import (
    CloseSession,
    ContinueSession,
    Event,
    ForkSession,
    GenerateSession,
    GrowVocabulary,
    NewRow,
    OpenSession,
    RebindSession,
    SelectSessionRows,
    SequenceSpec,
    StepRow,
    StepSession,
    TruncateSession,
    VocabularyGrown,
)
from tests.checkpoint_factory import HIDDEN_SIZE, VOCABULARY_SIZE
from tests.engine_harness import InprocEngine

from .device_maps import LAST_LAYER_ON_CPU, ONE, TWO
from .kinds import FULL, PROMPT, PROMPTS, SEEDS, TOP, ask, numbers_of

pytestmark = [
    pytest.mark.pretended_gpu,
    pytest.mark.filterwarnings("ignore:You are calling .generate"),  # Hugging Face's, about hooks
]

PLACES = {"one": ONE, "two": TWO}


def answers_of(engine: InprocEngine) -> Iterator[list[Event]]:
    """Leads two sessions through all that can be done with one."""
    ids = count(1000)

    def do(kind: Callable[..., object], *arguments: object, **options: object) -> list[Event]:
        engine.handle(kind(*arguments, **options, request_id=next(ids)))
        return engine.drain()

    specs = [SequenceSpec(*entry) for entry in zip(PROMPTS, SEEDS, strict=True)]
    steps = [StepRow([token_id], None) for token_id in (5, 6, 7)]
    penalized = engine.config(repetition_penalty=1.3)
    sampled = engine.config(do_sample=True, top_p=0.9, top_k=0)
    yield do(OpenSession, "s", specs, penalized, 0, 60, FULL, sample=True)
    yield do(StepSession, "s", steps, FULL, sample=True)
    yield do(StepSession, "s", steps, TOP, sample=True, append=True, look_ahead=True)
    yield do(ForkSession, "s", ["fork"], [0, 1, 2])
    yield do(TruncateSession, "s", [4, 1, 2])
    yield do(StepSession, "s", steps, TOP, sample=True)
    yield do(StepSession, "fork", steps, FULL)
    yield do(SelectSessionRows, "fork", [2, 0, 0])
    yield do(StepSession, "fork", steps, TOP)
    yield do(ContinueSession, "s", sampled, [6, 6, 6], FULL)
    yield do(GenerateSession, "g", specs, sampled, 0, 60, TOP)
    for session_id in ("s", "fork", "g"):
        yield do(CloseSession, session_id)


# Times differ from run to run.
TIMES = {"queue_s", "run_s", "prefill_s", "decode_s", "first_token_s"}


def content(events: list[Event]) -> list[tuple[str, list[float]]]:
    return [
        (
            type(event).__name__,
            [
                *numbers_of(
                    [
                        getattr(event, name)
                        for name in event.__struct_fields__
                        if name not in TIMES and name != "finish"
                    ]
                )
            ],
        )
        for event in events
    ]


@pytest.mark.parametrize("device_map", PLACES.values(), ids=PLACES)
def test_sessions_answer_as_on_the_cpu(served, on_cpu, device_map):
    engine = served(device_map)
    for answer, expected in zip(answers_of(engine), answers_of(on_cpu), strict=True):
        for (kind, numbers), (same, known) in zip(content(answer), content(expected), strict=True):
            assert kind == same
            np.testing.assert_allclose(numbers, known, rtol=1e-4, atol=1e-4, err_msg=kind)
    assert engine.engine._runner.cache.num_free_slots > 0


def new_rows(size: int, generator: np.random.Generator) -> list[NewRow]:
    """An id by each rule."""
    values = generator.normal(size=HIDDEN_SIZE).astype("<f4").tobytes()
    ids = count(size)
    return [
        NewRow(next(ids), "zero", True),
        NewRow(next(ids), "mean", True),
        NewRow(next(ids), "copy", True, copy_token_id=5),
        NewRow(next(ids), "mean_of_pieces", True, previous_ids=[3, 5, size - 1]),
        NewRow(next(ids), "values", True, input_values=values, output_values=values),
        NewRow(next(ids), "copy", False, copy_token_id=9),
    ]


@pytest.mark.parametrize(
    ("device_map", "reserved"),
    [
        pytest.param(ONE, 64, id="one, reserved", marks=pytest.mark.full),
        pytest.param(ONE, 0, id="one, moved"),
        pytest.param(TWO, 64, id="two, reserved", marks=pytest.mark.full),
        pytest.param(TWO, 0, id="two, moved", marks=pytest.mark.full),
        pytest.param(LAST_LAYER_ON_CPU, 0, id="with the CPU", marks=pytest.mark.full),
    ],
)
def test_ids_added_by_every_rule_are_those_of_the_cpu(start, folder, device_map, reserved):
    kinds = {
        "greedy": {"selection": FULL},
        "sampled": {"do_sample": True, "top_p": 0.9, "top_k": 0},
        "beams": {"num_beams": 2},
    }
    both = []
    for engine in (
        start(device_map, reserved_vocabulary_rows=reserved),
        InprocEngine(folder, reserved_vocabulary_rows=reserved),
    ):
        generator = np.random.default_rng(0)
        for revision in (1, 2):
            size = VOCABULARY_SIZE + 6 * (revision - 1)
            command = GrowVocabulary(revision, new_rows(size, generator), request_id=90 + revision)
            engine.handle(command)
            (event,) = engine.drain()
            assert isinstance(event, VocabularyGrown)
        prompt = [*PROMPT, *range(VOCABULARY_SIZE, VOCABULARY_SIZE + 12)]
        config = engine.config()
        specs = [SequenceSpec(PROMPT, 0)]
        engine.handle(OpenSession("s", specs, config, 0, 60, FULL, request_id=97))
        engine.handle(RebindSession("s", 2, request_id=98))
        engine.handle(StepSession("s", [StepRow([prompt[-1]], None)], FULL, request_id=99))
        stepped = [*numbers_of([event.rows for event in engine.drain() if hasattr(event, "rows")])]
        answers = [
            engine.generate([prompt], max_new_tokens=5, revision=2, **kind)
            for kind in kinds.values()
        ]
        both.append((ask(engine, kinds), answers, stepped))
    ours, theirs = both
    assert ours[1] == theirs[1]
    np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-4, atol=1e-4)
    assert {name: answer.tokens for name, answer in ours[0].items()} == {
        name: answer.tokens for name, answer in theirs[0].items()
    }
