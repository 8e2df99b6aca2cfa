"""Models that mask ids by an output bias of `-inf`, as the padding of Phi's vocabulary, float32."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PhiConfig

from model_service.engine.load.loader import Refused
from model_service.engine.trial import runner_choice
from model_service.engine.vocabulary.vocabulary import Vocabulary
from model_service.protocol import NewRow
from tests.checkpoint_factory import VOCABULARY_SIZE, make_model
from tests.engine_harness import InprocEngine, array, scores_of, tokens_of
from tests.pairs import Pair

from .test_processors import (
    FULL,
    GREEDY,
    NEW,
    PROMPT,
    SAMPLED,
    assert_equal_scores,
    lengthened,
    name_of,
    their_options,
)

ROWS = VOCABULARY_SIZE + 8
MASKED = (*range(40, 60), 318, *range(VOCABULARY_SIZE, ROWS))


def save(folder: Path, masked: tuple[int, ...] = MASKED, value: float = -torch.inf) -> Path:
    config = PhiConfig(
        vocab_size=ROWS,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = make_model(config, 0)
    with torch.no_grad():
        model.lm_head.bias[list(masked)] = value
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    folder = save(tmp_path_factory.mktemp("masked"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    engine = InprocEngine(folder)
    assert engine.info.execution_path == "fast"
    return Pair(folder, model, engine)


def scores(events, request_id, row=0) -> torch.Tensor:
    found = scores_of(events, request_id, row)
    return torch.stack([torch.from_numpy(array(position.scores)) for position in found])


@pytest.mark.parametrize("config", [{}, *GREEDY], ids=name_of)
def test_greedy_tokens_and_scores_equal_generate(pair, config):
    config = lengthened(config, PROMPT)
    expected = pair.generate(PROMPT, NEW, **their_options(config))
    request_id = pair.engine.submit([PROMPT], selection=FULL, max_new_tokens=NEW, **config)
    events = pair.engine.drain()
    assert tokens_of(events, request_id, 1) == [expected.token_ids]
    assert_equal_scores(scores(events, request_id), expected.scores, 1e-4)
    assert pair.engine.generate([PROMPT], max_new_tokens=NEW, **config) == [expected.token_ids]


@pytest.mark.parametrize("config", SAMPLED, ids=name_of)
def test_draws_are_from_the_distribution_of_generate(pair, config):
    config = {"do_sample": True, "top_k": 0, **config}
    expected = pair.generate(PROMPT, 1, **their_options(config)).scores[0]
    seeds = list(range(6))
    options = {"seeds": seeds, "max_new_tokens": 1, **config}
    request_id = pair.engine.submit([PROMPT] * 6, selection=FULL, **options)
    events = pair.engine.drain()
    for row in seeds:
        (got,) = scores(events, request_id, row)
        assert_equal_scores(got, expected, 1e-4)
    drawn = tokens_of(events, request_id, 6)
    assert not {token for (token,) in drawn} & {*MASKED}
    assert pair.engine.generate([PROMPT] * 6, **options) == drawn


def test_a_mask_on_rows_that_only_pad_the_vocabulary_changes_nothing(pair):
    engine = InprocEngine(pair.folder, vocabulary_size=VOCABULARY_SIZE)
    assert engine.info.vocabulary_size == VOCABULARY_SIZE
    assert engine.generate([PROMPT]) == pair.engine.generate([PROMPT])


@pytest.mark.parametrize("runner", ["fast", "compat"])
def test_each_path_serves_it(pair, runner, monkeypatch):
    if runner == "compat":
        monkeypatch.setattr(runner_choice, "fast_obstacle", lambda _: "it is switched off")
    engine = InprocEngine(pair.folder)
    assert engine.info.execution_path == runner
    assert engine.generate([PROMPT]) == [pair.generate(PROMPT, 8).token_ids]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_bias_that_is_no_mask_is_refused(value, tmp_path):
    with pytest.raises(Refused, match=r"lm_head\.bias contains NaN, or values that are infinite"):
        InprocEngine(save(tmp_path, value=value))


def test_a_bias_that_masks_every_id_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"lm_head\.bias contains NaN, or values that are infinite"):
        InprocEngine(save(tmp_path, masked=tuple(range(ROWS))))


@pytest.mark.parametrize("initialization", ["mean", "mean_of_pieces"])
def test_the_mean_of_biases_is_that_of_the_ids_that_are_not_masked(initialization, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save(tmp_path), dtype=torch.float32)
    biases = model.lm_head.bias.detach().double()
    pieces = [5, MASKED[0], 6]
    used = biases if initialization == "mean" else biases[pieces]
    vocabulary = Vocabulary(model, ROWS, 8)
    new = NewRow(ROWS, initialization, generable=True, previous_ids=pieces)
    vocabulary.grow(1, [new, NewRow(ROWS + 1, "mean_of_pieces", True, [*MASKED])])
    expected = used[used > -torch.inf].mean()
    assert float(model.lm_head.bias_of(ROWS)) == pytest.approx(float(expected), rel=1e-6)
    assert float(model.lm_head.bias_of(ROWS + 1)) == -torch.inf
