"""Weights kept narrower than the model computes: exactly, and rounded to int8."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from model_service.engine.layers.panels import packed_layers
from model_service.engine.load.loader import Refused
from model_service.engine.trial import self_test
from model_service.protocol import GrowVocabulary, NewRow
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.compiled_code import start
from tests.engine_harness import InprocEngine

from .conftest import Pair
from .test_decode_graphs import NEW, prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("compiling"),
]


@pytest.fixture(scope="module")
def llama(pair_of) -> Pair:
    return pair_of("llama")


@pytest.fixture
def rounding(llama: Pair) -> InprocEngine:
    if "avx512_vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("the processor has no AVX-512 VNNI")
    return InprocEngine(llama.folder, weights="int8", max_running_sequences=12)


@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float16])
def test_tokens_of_narrow_weights_in_float32_equal_generate(llama, kept, tmp_path):
    AutoModelForCausalLM.from_pretrained(llama.folder, dtype=kept).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    engine = start(tmp_path, dtype="float32")
    layers = packed_layers(engine.engine._runner._model)
    assert {layer.panels._panels.dtype for layer in layers} == {kept}
    pair = Pair(tmp_path, model, engine)
    expected = [pair.generate(prompt, NEW).token_ids for prompt in prompts()]
    assert [engine.generate([prompt], max_new_tokens=NEW)[0] for prompt in prompts()] == expected
    assert engine.generate(prompts(), max_new_tokens=NEW) == expected
    assert engine.engine._runner.compiled


def test_rounded_weights_are_served_and_said(llama, rounding):
    assert rounding.info.weight_format == "int8"
    assert llama.engine.info.weight_format == "float32"
    first = [llama.generate(prompt, 1).token_ids for prompt in prompts()]
    got = rounding.generate(prompts(), max_new_tokens=1)
    assert sum(one == other for one, other in zip(got, first, strict=True)) >= len(first) - 2


def test_ids_can_be_added_to_a_model_with_rounded_weights(rounding):
    row = NewRow(VOCABULARY_SIZE, "copy", True, copy_token_id=20)
    rounding.handle(GrowVocabulary(request_id=99, revision=1, rows=[row]))
    while rounding.engine.is_growing:
        rounding.step()
    given = [[*prompt, VOCABULARY_SIZE] for prompt in prompts()]
    copied = [[*prompt, 20] for prompt in prompts()]
    options = {"max_new_tokens": 1, "suppress_tokens": (20, VOCABULARY_SIZE)}
    assert rounding.generate(given, revision=1, **options) == rounding.generate(
        copied, revision=1, **options
    )


def test_steps_of_rounded_weights_are_compiled(llama, rounding):
    engine = start(llama.folder, weights="int8")
    first = rounding.generate(prompts(), max_new_tokens=1)
    assert engine.generate(prompts(), max_new_tokens=2)[0][:1] == first[0]
    assert engine.engine._runner.compiled


@pytest.mark.parametrize(
    ("architecture", "settings", "reason"),
    [
        ("llama", {"dtype": "float16"}, "cannot be used with a model in fp16"),
        ("gpt2", {}, "belongs to a Conv1D"),
    ],
)
def test_what_cannot_be_rounded_is_refused(pair_of, architecture, settings, reason):
    with pytest.raises(Refused, match=reason):
        InprocEngine(pair_of(architecture).folder, weights="int8", **settings)


def test_results_that_stray_too_far_are_refused(llama, monkeypatch):
    monkeypatch.setattr(self_test, "ROUNDED_MEAN", 1e-5)
    with pytest.raises(Refused, match="changes LlamaForCausalLM too much"):
        InprocEngine(llama.folder, weights="int8")


def test_without_a_compiler_rounding_is_refused(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="No C\\+\\+ compiler"):
        InprocEngine(llama.folder, weights="int8")


def test_a_model_on_the_compat_path_is_refused(llama, monkeypatch):
    monkeypatch.setattr(self_test, "MEAN", {torch.float32: 0.0})
    with pytest.raises(Refused, match="fast path"):
        InprocEngine(llama.folder, weights="int8")
