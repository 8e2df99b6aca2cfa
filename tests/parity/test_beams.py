"""Beam search against `generate(num_beams=...)`, float32."""

from dataclasses import dataclass

import pytest
import torch

from model_service.protocol import Cancel, SequenceTokens
from model_service.protocol.generation import ScoreSelection
from tests.architectures import TESTED
from tests.engine_harness import array

from .conftest import Pair
from .test_architectures import make_pair
from .test_engine import assert_close, make_prompts

NEW = 12
FULL = ScoreSelection(logits=True, scores=True, amount="full")
PROMPTS = make_prompts(7)[1:6]


@dataclass
class Result:
    """One sequence of a search."""

    token_ids: list[int]
    score: float
    beam_indices: list[int]


def expected_of(pair: Pair, prompt: list[int], *, new: int = NEW, **options: object):
    """What `generate` gives for one prompt, best first, and its whole output."""
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    with torch.inference_mode():
        out = pair.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=new,
            output_logits=True,
            output_scores=True,
            return_dict_in_generate=True,
            **options,
        )
    results = []
    for row, score, indices in zip(
        out.sequences, out.sequences_scores, out.beam_indices, strict=True
    ):
        length = int((indices >= 0).sum())
        results.append(
            Result(
                row[len(prompt) : len(prompt) + length].tolist(),
                float(score),
                indices[:length].tolist(),
            )
        )
    return results, out


def search(pair: Pair, prompts, *, count: int = 1, new: int = NEW, selection=None, **config):
    """Runs a call of beams and returns its events by row."""
    request_id = pair.engine.submit(
        [prompt for prompt in prompts for _ in range(count)],
        sequences_per_prompt=count,
        max_new_tokens=new,
        selection=selection,
        **config,
    )
    return events_of(pair.engine.drain(), request_id)


def events_of(events, request_id) -> list[SequenceTokens]:
    found = [e for e in events if isinstance(e, SequenceTokens) and e.request_id == request_id]
    assert len({event.row for event in found}) == len(found)
    return sorted(found, key=lambda event: event.row)


def assert_same(events: list[SequenceTokens], expected: list[Result]) -> None:
    assert len(events) == len(expected)
    for event, result in zip(events, expected, strict=True):
        assert event.finish.failure is None
        assert event.token_ids == result.token_ids
        assert event.finish.beam_indices == result.beam_indices
        scale = max(1.0, abs(result.score))
        assert abs(event.finish.sequence_score - result.score) <= 1e-5 * scale


def some_ends(pair: Pair, prompt: list[int], num_beams: int) -> list[int]:
    """Ids that beams come across earlier and later, so that they end at different times."""
    results, _ = expected_of(
        pair, prompt, num_beams=num_beams, num_return_sequences=num_beams, early_stopping=True
    )
    return sorted({results[0].token_ids[3], results[-1].token_ids[6]})


@pytest.mark.parametrize("num_beams", [2, 5])
def test_all_beams_of_prompts_in_one_call_equal_generate(pair: Pair, num_beams):
    events = search(pair, PROMPTS, count=num_beams, num_beams=num_beams)
    for index, prompt in enumerate(PROMPTS):
        expected, _ = expected_of(pair, prompt, num_beams=num_beams, num_return_sequences=num_beams)
        assert_same(events[index * num_beams : (index + 1) * num_beams], expected)


def test_beam_search_is_not_greedy(pair: Pair):
    greedy = pair.engine.generate(PROMPTS, max_new_tokens=NEW)
    beams = [event.token_ids for event in search(pair, PROMPTS, num_beams=5)]
    assert sum(a != b for a, b in zip(greedy, beams, strict=True)) >= 2


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.5])
def test_ends_at_different_times_equal_generate(pair: Pair, early_stopping, length_penalty):
    options = {
        "num_beams": 4,
        "early_stopping": early_stopping,
        "length_penalty": length_penalty,
    }
    lengths = set()
    for prompt in PROMPTS[:3]:
        ends = some_ends(pair, prompt, 4)
        expected, _ = expected_of(
            pair, prompt, num_return_sequences=3, eos_token_id=ends, **options
        )
        events = search(pair, [prompt], count=3, eos_token_ids=tuple(ends), **options)
        assert_same(events, expected)
        for event in events:
            lengths.add(len(event.token_ids))
            ended = event.token_ids[-1] in ends
            assert event.finish.reason == ("eos_token" if ended else "max_new_tokens")
    assert len(lengths) > 1 or length_penalty > 1.0


MIXES = {
    "penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    "suppressed": {"suppress_tokens": (3, 4, 5), "bad_words_ids": ((7,), (8, 9))},
    "minimum": {"min_new_tokens": 6, "eos_token_ids": (11, 12, 13)},
    "forced end": {"forced_eos_token_ids": (11,), "eos_token_ids": (11,)},
    "decay": {"exponential_decay_length_penalty": (2, 1.6), "eos_token_ids": (11,)},
    "few tokens": {"allowed_token_ids": (20, 21, 22, 23)},
    "renormalized": {"repetition_penalty": 2.0, "renormalize_logits": True},
}


@pytest.mark.parametrize("mix", MIXES)
def test_processors_see_log_probabilities_as_in_generate(pair_of, mix):
    pair = pair_of("llama")
    config = dict(MIXES[mix])
    theirs = {
        "eos_token_ids": "eos_token_id",
        "forced_eos_token_ids": "forced_eos_token_id",
    }
    options = {
        theirs.get(name, name): [list(v) if isinstance(v, tuple) else v for v in value]
        if isinstance(value, tuple) and name != "exponential_decay_length_penalty"
        else value
        for name, value in config.items()
    }
    if (allowed := options.pop("allowed_token_ids", None)) is not None:
        options["prefix_allowed_tokens_fn"] = lambda *_: allowed
    for prompt in PROMPTS:
        expected, out = expected_of(pair, prompt, num_beams=3, num_return_sequences=3, **options)
        events = search(pair, [prompt], count=3, num_beams=3, selection=FULL, **config)
        assert_same(events, expected)
        for row, event in enumerate(events):
            for t, position in enumerate(event.scores):
                beam = int(out.beam_indices[row, t])
                logits = torch.from_numpy(array(position.logits))
                assert_close(logits, out.logits[t][beam])
                scores, theirs_ = torch.from_numpy(array(position.scores)), out.scores[t][beam]
                excluded = theirs_ == -torch.inf
                assert torch.equal(scores == -torch.inf, excluded)
                assert_close(scores[~excluded], theirs_[~excluded])


def test_one_token_of_a_search_equals_generate(pair: Pair):
    events = search(pair, PROMPTS, count=3, num_beams=3, new=1)
    for index, prompt in enumerate(PROMPTS):
        expected, _ = expected_of(pair, prompt, num_beams=3, num_return_sequences=3, new=1)
        assert_same(events[index * 3 : index * 3 + 3], expected)


def test_searches_that_join_a_running_batch_in_chunks_equal_generate(pair: Pair):
    """Greedy, sampled and cancelled neighbors, and more rows than run at once."""
    engine = pair.engine
    engine.engine._scheduler._clock._budget_s = 0.0  # the smallest chunks
    events, ids = [], []
    for prompt in PROMPTS:
        stranger = engine.submit([prompt[::-1]], max_new_tokens=30, num_beams=3)
        engine.submit([prompt[::-1]], max_new_tokens=5, do_sample=True)
        ids.append(engine.submit([prompt], max_new_tokens=NEW, num_beams=4))
        for _ in range(3):
            events += engine.step() or []
        engine.handle(Cancel(stranger))
    events += engine.drain()
    for prompt, request_id in zip(PROMPTS, ids, strict=True):
        expected, _ = expected_of(pair, prompt, num_beams=4)
        assert_same(events_of(events, request_id), expected)
    assert engine.engine._scheduler.num_running == 0
    assert engine.engine._scheduler.kv_used_tokens == 0


# With keys and values, with a recurrent state, with both, and without any past.
COMPAT = ["bloom", "gptj", "falcon", "gpt_neo", "mamba", "bamba", "rwkv", "openai-gpt"]


@pytest.fixture(scope="module", params=COMPAT)
def compat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pair = make_pair(TESTED[request.param], tmp_path_factory.mktemp(request.param))
    assert pair.engine.info.execution_path == "compat"
    return pair


def theirs_uncached(pair: Pair) -> dict[str, bool]:
    """Hugging Face cannot give a beam the state of another in RWKV, and then has to keep none."""
    return {"use_cache": False} if pair.model.config.model_type == "rwkv" else {}


def test_beams_on_the_compat_path_equal_generate(compat: Pair):
    prompts = PROMPTS[:3]
    events = search(compat, prompts, count=3, num_beams=3, new=8)
    moved = False
    for index, prompt in enumerate(prompts):
        expected, _ = expected_of(
            compat, prompt, num_beams=3, num_return_sequences=3, new=8, **theirs_uncached(compat)
        )
        assert_same(events[index * 3 : index * 3 + 3], expected)
        moved |= any(sorted(set(result.beam_indices[1:])) != [0] for result in expected)
    assert moved, "no beam went on from the past of another"


def test_drawn_beams_with_ends_on_the_compat_path_equal_generate(compat: Pair):
    options = {"num_beams": 3, "do_sample": True, "top_k": 20, "length_penalty": 0.5}
    ends = list(range(0, 300, 12))
    for seed, prompt in enumerate(PROMPTS[:2]):
        torch.manual_seed(seed)
        expected, _ = expected_of(
            compat, prompt, new=8, eos_token_id=ends, **options, **theirs_uncached(compat)
        )
        events = search(
            compat,
            [prompt],
            new=8,
            seeds=[seed],
            seed_mode="torch",
            eos_token_ids=tuple(ends),
            min_tokens_to_keep=len(ends) + 1,
            **options,
        )
        assert_same(events, expected)
