"""A request at a revision sees that revision and nothing of what came after it.

The oracle is an engine that has not grown any further: whatever a request asks
for, it must get the same tokens and the same numbers, to the bit. The ids that
come later are as loud as ids can be.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import torch

from lockstep_processors import Arguments, CustomProcessor, Row
from model_service.protocol import Event, GrowVocabulary, NewRow, SequenceTokens
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.processor_arguments import GreenListWatermark, ProcessorSpec
from tests.checkpoint_factory import HIDDEN_SIZE, VOCABULARY_SIZE, make_checkpoint
from tests.engine_harness import InprocEngine, array, scores_of, tokens_of
from tests.parity.test_processors import GREEDY, SAMPLED, name_of

PROMPTS = [[17, 42, 17, 99, 42, 17, 5, 230, 17, 42], [7, 8, 7, 8, 7]]
NEW = 8
PINNED = 2
LATEST = 6
SEEDS = [11, 12]

EVERYTHING = ScoreSelection(
    logits=True,
    scores=True,
    amount="full",
    rank=True,
    entropy=True,
    logsumexp=True,
    processor_trace=True,
)
SELECTIONS = {
    "everything": EVERYTHING,
    "more than there is": ScoreSelection(logits=True, scores=True, amount="top_k", top_k=1024),
    "some ids": ScoreSelection(logits=True, amount="token_ids", token_ids=(3, VOCABULARY_SIZE)),
}

MORE = [
    {},
    {"do_sample": True, "top_k": 0},
    {"do_sample": True, "top_k": 1000},
    {"do_sample": True, "top_p": 0.9, "seed_mode": "torch"},
    {"do_sample": True, "top_k": 0, "temperature": 3.0, "repetition_penalty": 1.3},
    {"presence_penalty": 2.0, "frequency_penalty": 1.0},
    {"logit_bias": ((9, 4.0), (VOCABULARY_SIZE, -3.0))},
    {"allowed_token_ids": (4, 9, 12, 200, VOCABULARY_SIZE)},
    {"forced_prefix": (5, VOCABULARY_SIZE)},
    {"stop_strings": ("gah",)},
    {"stop_sequences": ((9,),)},
    {"prompt_lookup_num_tokens": 4},
    {"guidance_scale": 1.5, "negative_prompt": (9, 10, 11)},
    {"num_beams": 3},
    {"num_beams": 3, "do_sample": True, "top_k": 0},
    {"num_beams": 2, "do_sample": True, "seed_mode": "torch", "repetition_penalty": 1.2},
    {
        "do_sample": True,
        "processors": (
            ProcessorSpec("top_k", '{"top_k": 900}'),
            ProcessorSpec("green_list_watermark", '{"bias": 3.0}'),
        ),
    },
    {"processors": (ProcessorSpec("test.last", "{}"),)},
]
CONFIGS = [*GREEDY, *({"do_sample": True, "top_k": 0, **config} for config in SAMPLED), *MORE]


class Nothing(Arguments, frozen=True):
    """Prefers the last id of the row, whichever that is."""


def prefer_last(arguments: Nothing, row: Row):
    def apply(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert scores.shape[-1] == row.vocabulary_size
        preferred = scores.clone()
        preferred[:, -2] = scores.max() + 1  # the very last one must not be generated
        return preferred

    return apply


def vector(value: float) -> bytes:
    """A row that makes logits as large as it is, of either sign."""
    return struct.pack(f"<{HIDDEN_SIZE}f", *([value, -value] * (HIDDEN_SIZE // 2)))


def rows(revision: int, first_id: int) -> list[NewRow]:
    """Two ids per revision, the second one not to be generated; later ones are louder."""
    if revision <= PINNED:
        values = [vector(0.3 * revision), vector(20.0)]
    else:
        values = [vector(10.0**revision), vector(3e38)]  # the last makes logits overflow
    return [
        NewRow(
            token_id=first_id + index,
            initialization="values",
            generable=index == 0,
            input_values=value,
            token_bytes=b"g" if index == 0 else b"h",
        )
        for index, value in enumerate(values)
    ]


LOGITS_PROCESSORS = [CustomProcessor("test.last", Nothing, prefer_last)]


def grow(engine: InprocEngine, first: int, last: int) -> None:
    for revision in range(first, last + 1):
        size = VOCABULARY_SIZE + 2 * (revision - 1)
        engine.handle(GrowVocabulary(revision, rows(revision, size), request_id=10**6 + revision))
    engine.drain()


@dataclass
class Twins:
    """Two engines of one checkpoint: one that ends at a revision, and one that went on."""

    ended: InprocEngine
    went_on: InprocEngine
    revision: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "untied", "llama")


@pytest.fixture(scope="module", params=[0, PINNED], ids=["base", "pinned"])
def twins(folder: Path, request: pytest.FixtureRequest):
    engines = [
        InprocEngine(folder, dtype="float32", logits_processors=(__name__,)) for _ in range(2)
    ]
    grow(engines[0], 1, request.param)
    grow(engines[1], 1, LATEST)
    for engine in engines:
        spelled = [bytes([97 + i // 26, 97 + i % 26]) for i in range(VOCABULARY_SIZE)]
        engine.engine._runner.vocabulary.spell(spelled)
    return Twins(*engines, request.param)


def run(
    engine: InprocEngine,
    revision: int,
    config: dict,
    prompts: list[list[int]] = PROMPTS,
    **arguments: object,
) -> list[Event]:
    """What a call is told, without what differs from run to run anyway."""
    request_id = engine.submit(
        prompts, SEEDS, revision=revision, max_new_tokens=NEW, **arguments, **config
    )
    events = [event for event in engine.drain() if isinstance(event, SequenceTokens)]
    assert {event.request_id for event in events} == {request_id}
    for event in events:
        event.request_id = 0
        if event.finish is not None:
            event.finish = msgspec.structs.replace(
                event.finish, queue_s=0, prefill_s=0, decode_s=0, steps=0
            )
    return events


def tokens(events: list[Event]) -> list[list[int]]:
    return tokens_of(events, 0, len(PROMPTS))


def skip_unless_it_fits(values: object, revision: int) -> None:
    """Skips a configuration that names ids which the revision does not have."""
    if str(VOCABULARY_SIZE) in str(values) and not revision:
        pytest.skip("it names ids that this revision does not have")


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_tokens_and_every_number_about_them_are_those_of_the_revision(twins, config):
    skip_unless_it_fits(config, twins.revision)
    given = not {"num_beams", "guidance_scale"} & config.keys()
    ours, theirs = (
        run(
            engine,
            twins.revision,
            config,
            selection=EVERYTHING,
            prompt_selection=EVERYTHING if given else None,
        )
        for engine in (twins.went_on, twins.ended)
    )
    assert ours == theirs
    size = VOCABULARY_SIZE + 2 * twins.revision
    for row in range(len(PROMPTS)):
        for position in scores_of(ours, 0, row):
            assert array(position.logits).shape == array(position.scores).shape == (size,)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_without_scores_the_fast_path_gives_the_same(twins, config):
    skip_unless_it_fits(config, twins.revision)
    ours = run(twins.went_on, twins.revision, config)
    assert ours == run(twins.ended, twins.revision, config)
    assert max(map(max, filter(None, tokens(ours)))) < VOCABULARY_SIZE + 2 * twins.revision


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_selections_are_of_the_revision(twins, selection):
    skip_unless_it_fits(selection, twins.revision)
    ours, theirs = (
        run(engine, twins.revision, {}, selection=selection)
        for engine in (twins.went_on, twins.ended)
    )
    assert ours == theirs


def test_a_prompt_reuses_what_another_revision_has_computed(twins):
    engine = twins.went_on
    long = [[(7 * i + n) % VOCABULARY_SIZE for i in range(60)] for n in range(2)]
    run(engine, 0 if twins.revision else PINNED, {}, long, cache_salt="shared")
    ours = run(engine, twins.revision, {}, long, cache_salt="shared")
    assert max(e.finish.cached_prompt_tokens for e in ours if e.finish is not None) > 0
    assert tokens(ours) == tokens(run(twins.ended, twins.revision, {}, long, cache_salt="own"))


# What a configuration would have to do to generate an id.
INSISTING = [
    {},
    {"do_sample": True, "top_k": 0, "temperature": 5.0},
    {"logit_bias": ((0, 1e6),)},
    {"sequence_bias": (((0,), 1e6),)},
    {"num_beams": 3},
    {"do_sample": True, "top_k": 0, "green_list_watermark": True},
]


@pytest.mark.parametrize("number", range(len(INSISTING)))
def test_an_id_that_must_not_be_generated_never_is_and_another_is_at_once(folder, number):
    engine = InprocEngine(folder, dtype="float32")
    loud, size = vector(50.0), VOCABULARY_SIZE
    both = [
        NewRow(size + i, "values", generable=False, input_values=values)
        for i, values in enumerate((loud, vector(-50.0)))
    ]
    engine.handle(GrowVocabulary(1, both, request_id=1))
    again = [
        NewRow(size + 2 + i, "values", generable=True, input_values=values)
        for i, values in enumerate((loud, vector(-50.0)))
    ]
    engine.handle(GrowVocabulary(2, again, request_id=2))
    engine.drain()
    before, after = (
        run(engine, revision, _insisting_on(INSISTING[number], size + 2 * (revision - 1)))
        for revision in (1, 2)
    )
    assert max(map(max, tokens(before))) < size
    assert {size + 2, size + 3} & {token for row in tokens(after) for token in row}
    assert not {size, size + 1} & {token for row in tokens(after) for token in row}


def _insisting_on(config: dict, token_id: int) -> dict:
    if "logit_bias" in config:
        return {"logit_bias": ((token_id, 1e6),)}
    if "sequence_bias" in config:
        return {"sequence_bias": (((token_id,), 1e6),)}
    if "green_list_watermark" in config:
        return {**config, "green_list_watermark": GreenListWatermark(bias=9.0)}
    return config


def test_where_only_such_ids_are_allowed_there_is_no_token(folder):
    engine = InprocEngine(folder, dtype="float32")
    row = NewRow(VOCABULARY_SIZE, "values", generable=False, input_values=vector(50.0))
    engine.handle(GrowVocabulary(1, [row], request_id=1))
    engine.drain()
    events = run(engine, 1, {"allowed_token_ids": (VOCABULARY_SIZE,)})
    failures = [event.finish.failure for event in events if event.finish is not None]
    assert [failure.error for failure in failures] == ["NoTokenLeft"] * len(PROMPTS)
