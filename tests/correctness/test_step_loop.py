"""A loop over steps gives what one generation gives: the same tokens for the same seed.

Through both services and the client, with configurations drawn from everything
that changes scores or ends a row. A row that fails fails at the same place.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lockstep_client import Lockstep, ScoreSelection
from lockstep_client.exceptions import InvalidField, ServiceError
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.services import Services

NEW = 8
NONE = ScoreSelection()

IDS = st.integers(0, VOCABULARY_SIZE - 1)
ID_LISTS = st.lists(IDS, min_size=1, max_size=6, unique=True)
RUNS = st.lists(st.lists(IDS, min_size=1, max_size=2), min_size=1, max_size=4)
PROMPTS = st.lists(st.lists(IDS, min_size=1, max_size=12), min_size=1, max_size=3)
BIASES = st.floats(-8, 8, width=16)

WARPERS = {
    "temperature": st.sampled_from([0.5, 0.9, 1.3, 2.0]),
    "top_k": st.sampled_from([0, 1, 3, 20, 200]),
    "top_p": st.sampled_from([0.3, 0.8, 0.95]),
    "min_p": st.sampled_from([0.01, 0.1]),
    "typical_p": st.sampled_from([0.4, 0.9]),
    "epsilon_cutoff": st.sampled_from([1e-3, 2e-2]),
    "eta_cutoff": st.sampled_from([1e-3, 2e-2]),
    "top_h": st.sampled_from([0.3, 0.8]),
}
PROCESSORS = {
    "repetition_penalty": st.sampled_from([0.8, 1.1, 1.5]),
    "presence_penalty": st.sampled_from([-1.0, 0.5, 2.0]),
    "frequency_penalty": st.sampled_from([-1.0, 0.5, 2.0]),
    "encoder_repetition_penalty": st.sampled_from([0.8, 1.3]),
    "no_repeat_ngram_size": st.integers(1, 3),
    "encoder_no_repeat_ngram_size": st.integers(1, 3),
    "bad_words_ids": RUNS,
    "sequence_bias": st.dictionaries(st.tuples(IDS), BIASES, min_size=1, max_size=3),
    "suppress_tokens": ID_LISTS,
    "begin_suppress_tokens": ID_LISTS,
    "forced_prefix": st.lists(IDS, min_size=1, max_size=3),
    "min_new_tokens": st.integers(1, NEW),
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 4), st.sampled_from([1.1, 2.0])),
    "renormalize_logits": st.just(True),
    "green_list_watermark": st.just({"greenlist_ratio": 0.3, "bias": 3.0}),
}
ENDS = {
    "eos_token_id": ID_LISTS,
    "stop_token_ids": ID_LISTS,
    "stop_sequences": RUNS,
}


def some(fields: dict[str, st.SearchStrategy], most: int = 3) -> st.SearchStrategy:
    """A configuration of a few of the fields."""
    names = st.lists(st.sampled_from(sorted(fields)), max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({n: fields[n] for n in chosen}))


CONFIGS = st.builds(
    lambda processors, warpers, ends, sampled: {
        "lenient": True,
        "eos_token_id": [],
        "do_sample": sampled,
        **processors,
        **(warpers if sampled else {}),
        **ends,
    },
    some(PROCESSORS),
    some(WARPERS),
    some(ENDS, most=2),
    st.booleans(),
)

Outcome = list[tuple[list[int], type | None]]
Loop = Callable[[Lockstep, list[list[int]], dict[str, Any]], Outcome]


def generated(ls: Lockstep, prompts: list[list[int]], options: dict[str, Any]) -> Outcome:
    """One call."""
    out = ls.model.generate(prompts, max_new_tokens=NEW, **options)
    return [(list(row.token_ids), type(row.error) if row.error else None) for row in out.details]


def appended(ls: Lockstep, prompts: list[list[int]], options: dict[str, Any]) -> Outcome:
    """Row by row, a loop that never sends a token: the server appends what it chose."""
    outcome: Outcome = []
    for prompt, seed in zip(prompts, seeds_of(ls, prompts, options), strict=True):
        tokens: list[int] = []
        outcome.append((tokens, None))
        alone = {**options, "max_length": len(prompt) + NEW, "selection": NONE}
        if options["do_sample"]:
            alone["seed"] = seed
        try:
            with ls.model.open_session([prompt], sample=True, append=True, **alone) as session:
                token, reason = session.sampled_token_ids[0], session.finish_reasons[0]
                tokens.append(token)
                while reason is None and len(tokens) < NEW:
                    result = session.step([[]], sample=True, append=True)
                    tokens.append(result.sampled_token_ids[0])
                    reason = result.finish_reasons[0]
        except InvalidField:
            raise
        except ServiceError as error:
            outcome[-1] = (tokens, type(error))
    return outcome


def sent_back(ls: Lockstep, prompts: list[list[int]], options: dict[str, Any]) -> Outcome:
    """All rows in one session over a stream: the client sends back what the server chose."""
    room = max(map(len, prompts)) + NEW
    with ls.model.open_session(
        prompts, sample=True, selection=NONE, max_length=room, **options
    ) as session:
        tokens = [[token] for token in session.sampled_token_ids]
        reasons = list(session.finish_reasons)
        with session.step_stream() as steps:
            for _ in range(NEW - 1):
                rows = [
                    ids[-1:] if reason is None else []
                    for ids, reason in zip(tokens, reasons, strict=True)
                ]
                result = steps.step(rows, sample=True)
                for index, ids in enumerate(rows):
                    if ids:
                        tokens[index].append(result.sampled_token_ids[index])
                        reasons[index] = result.finish_reasons[index]
    return [(ids, None) for ids in tokens]


def picked_by_the_client(
    ls: Lockstep, prompts: list[list[int]], options: dict[str, Any]
) -> Outcome:
    """The client takes the best of the processed scores itself, with numpy."""
    scores = ScoreSelection(scores=True, full=True)
    outcome: Outcome = []
    for prompt in prompts:
        with ls.model.open_session(
            [prompt], selection=scores, max_length=len(prompt) + NEW, **options
        ) as session:
            tokens: list[int] = []
            for _ in range(NEW):
                tokens.append(int(session.scores[0].argmax()))
                if len(tokens) < NEW:
                    session.step([tokens[-1:]])
            outcome.append((tokens, None))
    return outcome


def finished_by_the_server(
    ls: Lockstep, prompts: list[list[int]], options: dict[str, Any]
) -> Outcome:
    """A few steps, and then a generation within the session."""
    room = max(map(len, prompts)) + NEW
    with ls.model.open_session(
        prompts, sample=True, append=True, selection=NONE, max_length=room, **options
    ) as session:
        tokens = [[token] for token in session.sampled_token_ids]
        for _ in range(2):
            chosen = session.step([[]] * len(prompts), sample=True, append=True)
            for ids, token in zip(tokens, chosen.sampled_token_ids, strict=True):
                ids.append(token)
        rest = session.generate(max_new_tokens=NEW - 3)
    return [
        (ids + list(row.token_ids), type(row.error) if row.error else None)
        for ids, row in zip(tokens, rest.details, strict=True)
    ]


def kept_and_continued(ls: Lockstep, prompts: list[list[int]], options: dict[str, Any]) -> Outcome:
    """A generation in two calls, over the session that the first leaves behind."""
    first = ls.model.generate(prompts, max_new_tokens=3, keep_session=True, **options)
    with ls.model.get_session(first.session_id) as session:
        rest = session.generate(max_new_tokens=NEW - 3)
    return [
        (a + list(row.token_ids), type(row.error) if row.error else None)
        for a, row in zip(first.sequences, rest.details, strict=True)
    ]


def seeds_of(ls: Lockstep, prompts: list[list[int]], options: dict[str, Any]) -> list[int]:
    """The seeds that the rows of a call have."""
    with ls.model.open_session(prompts, selection=NONE, **options) as session:
        return list(session.seeds)


def sized(examples: int, full: int):
    return pytest.mark.parametrize(
        "examples",
        [
            pytest.param(examples, id="ci"),
            pytest.param(full, id="full", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
        ],
    )


@pytest.fixture(scope="module")
def ls(services: Services):
    with services.client() as client:
        yield client


@pytest.mark.parametrize(
    ("loop", "needs"),
    [
        (appended, {}),
        (sent_back, {}),
        (picked_by_the_client, {"do_sample": False, "stop_token_ids": [], "stop_sequences": []}),
        (finished_by_the_server, {"stop_token_ids": [], "stop_sequences": []}),
        (kept_and_continued, {"stop_token_ids": [], "stop_sequences": []}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@sized(12, 300)
def test_a_loop_gives_the_tokens_of_generate(
    loop: Loop, needs: dict[str, Any], examples: int, ls: Lockstep, record_property
):
    seen = {"configurations": 0, "rows": 0, "tokens": 0, "failures": 0}

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(prompts=PROMPTS, config=CONFIGS, seed=st.integers(0, 2**63 - 1))
    def same(prompts, config, seed):
        options = {**config, **needs}
        if "eos_token_id" in config and needs:
            options["eos_token_id"] = []  # these loops go on to the end
        if not options["do_sample"]:
            options = {name: value for name, value in options.items() if name not in WARPERS}
        else:
            options["seed"] = seed
        try:
            expected = generated(ls, prompts, options)
        except InvalidField:
            assume(False)
        failed = [error for _, error in expected if error is not None]
        if failed and loop is not appended:
            return  # a call that fails for one row says nothing about the others
        assert loop(ls, prompts, options) == expected
        seen["configurations"] += 1
        seen["rows"] += len(prompts)
        seen["tokens"] += sum(len(tokens) for tokens, _ in expected)
        seen["failures"] += len(failed)

    same()
    for name, value in seen.items():
        record_property(name, value)
    print(loop.__name__, seen)
    assert seen["configurations"] >= examples // 2
