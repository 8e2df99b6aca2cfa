"""A path that is broken is not taken: each test breaks one in one way."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTJConfig, MistralConfig

from model_service.engine.layers.growing_head import GrowingHead
from model_service.engine.load import loader
from model_service.engine.load.loader import Refused
from model_service.engine.run import model_runner
from model_service.engine.run.compat_cache import CompatCache, Past
from model_service.engine.run.kv_cache import KVCache
from model_service.engine.run.model_runner import ModelRunner
from model_service.engine.trial import oracle
from model_service.engine.vocabulary.vocabulary import Vocabulary
from model_service.protocol import EngineSettings
from tests.engine_harness import InprocEngine

SIZES = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0}


def save(folder: Path, architecture: str = "mistral") -> Path:
    configs = {
        "mistral": MistralConfig(
            **SIZES,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            sliding_window=4096,
        ),
        "gptj": GPTJConfig(**SIZES, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=64),
    }
    config = configs[architecture]
    config.initializer_range = 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def path_of(tmp_path, caplog):
    """Which path a Mistral takes, and why."""

    def start() -> tuple[str, str]:
        with caplog.at_level(logging.INFO, "model_service"):
            return InprocEngine(save(tmp_path)).info.execution_path, caplog.text

    return start


def test_the_model_of_these_tests_takes_the_fast_path(path_of):
    assert path_of()[0] == "fast"


def test_wrong_positions_are_found(path_of, monkeypatch):
    call = ModelRunner._call
    monkeypatch.setattr(
        ModelRunner,
        "_call",
        lambda self, context, graph, ids, positions, *rest: call(
            self, context, graph, ids, [position + (position > 8) for position in positions], *rest
        ),
    )
    path, reason = path_of()
    assert (path, "in one batch" in reason) == ("compat", True)


def test_a_window_that_is_not_applied_is_found_though_no_prompt_is_as_long(path_of, monkeypatch):
    monkeypatch.setattr(model_runner, "layer_windows", lambda config: [None, None])
    path, reason = path_of()
    assert (path, "in one batch" in reason) == ("compat", True)


def test_a_fork_that_copies_nothing_is_found(path_of, monkeypatch):
    monkeypatch.setattr(KVCache, "copy", lambda *arguments: None)
    path, reason = path_of()
    assert (path, "after a fork" in reason) == ("compat", True)


def test_a_cut_that_leaves_what_was_cut_is_found(tmp_path, monkeypatch):
    def cut(self: Past, length: int) -> bool:
        self.length = length
        return True

    monkeypatch.setattr(Past, "cut", cut)
    with pytest.raises(Refused, match=r"after a cut|does not run"):
        InprocEngine(save(tmp_path, "gptj"))


def test_a_fork_that_shares_its_past_is_found(tmp_path, monkeypatch):
    def copy(self: CompatCache, source: int, target: int, length: int) -> None:
        self._pasts[target] = self._pasts[source]

    monkeypatch.setattr(CompatCache, "copy", copy)
    with pytest.raises(Refused, match="after a fork"):
        InprocEngine(save(tmp_path, "gptj"))


def test_output_rows_that_do_not_grow_right_are_found(path_of, monkeypatch):
    add = GrowingHead.add
    monkeypatch.setattr(GrowingHead, "add", lambda self, row, bias: add(self, row * 0.9, bias))
    with pytest.raises(Refused, match="after growth"):
        path_of()


def test_a_vocabulary_that_has_grown_in_the_self_test_is_as_before(tmp_path):
    vocabulary: Vocabulary = InprocEngine(save(tmp_path)).engine._runner.vocabulary
    assert (vocabulary.size, vocabulary.revision, vocabulary.num_reserved) == (64, 0, 8192)
    assert not vocabulary._embedding._buffer[64:].any()
    assert not vocabulary.token_bytes


def test_a_model_that_goes_by_the_length_of_its_cache_is_found(path_of, monkeypatch):
    call = ModelRunner._call

    def by_length(self, context, graph, ids, positions, *rest):
        length = self.cache.get_seq_length()
        moved = [position + length * (position % 2) for position in positions]
        return call(self, context, graph, ids, moved, *rest)

    monkeypatch.setattr(ModelRunner, "_call", by_length)
    path, reason = path_of()
    assert (path, "depend on the length of its cache" in reason) == ("compat", True)


def test_positions_that_the_model_does_not_have_are_found(tmp_path):
    settings = EngineSettings(socket_path="", ring_name="", model_folder=str(tmp_path))
    save(tmp_path, "gptj")
    loaded = loader.load(settings)
    assert loaded.context_length == 64
    oracle.try_last_position(loaded)
    with pytest.raises(Refused, match="no position 99"):
        oracle.try_last_position(dataclasses.replace(loaded, context_length=100))
