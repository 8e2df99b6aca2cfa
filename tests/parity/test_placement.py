"""Models over several places, through accelerate's real hooks: memory, disk and, marked, GPUs."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTJConfig, PreTrainedConfig

from model_service.engine.load.loader import Refused
from model_service.protocol import GrowVocabulary, NewRow, VocabularyGrown
from tests.checkpoint_factory import ARCHITECTURES
from tests.engine_harness import InprocEngine

PROMPTS = [[3, 5, 7, 9, 11, 2, 4, 6, 8, 10, 12], [5], [9, 8, 7]]
NEW = 8

MODELS = {
    "llama": ARCHITECTURES["llama"],
    "gptj": lambda: GPTJConfig(vocab_size=64, n_embd=32, n_layer=3, n_head=2, rotary_dim=8),
}
PATHS = {"llama": "fast", "gptj": "compat"}

# Modules by architecture: the embedding, the layers, what else there is, the head.
MODULES = {
    "llama": ("model.embed_tokens", "model.layers", ["model.norm", "model.rotary_emb"], "lm_head"),
    "gptj": ("transformer.wte", "transformer.h", ["transformer.ln_f"], "lm_head"),
}


def device_map(architecture: str, *, embedding, layers, head) -> dict[str, object]:
    first, blocks, rest, last = MODULES[architecture]
    places = {f"{blocks}.{index}": place for index, place in enumerate(layers)}
    others = dict.fromkeys(rest, layers[-1] if layers[-1] != "disk" else "cpu")
    return {first: embedding, **places, **others, last: head}


def save(config: PreTrainedConfig, folder: Path) -> Path:
    config.initializer_range = 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def generated(folder: Path) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    rows = []
    for prompt in PROMPTS:
        mask = torch.ones(1, len(prompt), dtype=torch.int64)
        out = model.generate(torch.tensor([prompt]), attention_mask=mask, **options)
        rows.append(out[0, len(prompt) :].tolist())
    return rows


def check(architecture: str, places: dict[str, object], folder: Path) -> InprocEngine:
    """Equals `generate`, and an id that is added as a copy follows like the original."""
    expected = generated(folder)
    engine = InprocEngine(
        folder,
        device_map=json.dumps(places),
        max_running_sequences=4,
        reserved_vocabulary_rows=0,  # so that the embedding moves
    )
    assert engine.info.execution_path == PATHS[architecture]
    assert engine.info.device_map == {name: str(place) for name, place in places.items()}
    assert engine.generate(PROMPTS, max_new_tokens=NEW) == expected
    size = engine.info.vocabulary_size
    row = NewRow(size, "copy", generable=False, copy_token_id=PROMPTS[0][-1])
    engine.handle(GrowVocabulary(1, [row], request_id=7))
    (event,) = engine.drain()
    assert isinstance(event, VocabularyGrown)
    prompts = [[*PROMPTS[0][:-1], size]]
    assert engine.generate(prompts, max_new_tokens=NEW, revision=1) == expected[:1]
    return engine


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize(
    "places",
    [
        {"embedding": "cpu", "layers": ["cpu", "disk", "disk"], "head": "cpu"},
        {"embedding": "disk", "layers": ["cpu", "disk", "cpu"], "head": "disk"},
        {"embedding": "cpu", "layers": ["cpu", "cpu", "cpu"], "head": "disk"},
    ],
    ids=["layers on disk", "both ends on disk", "head on disk"],
)
def test_a_model_partly_on_disk_equals_generate_and_grows(architecture, places, tmp_path):
    folder = save(MODELS[architecture](), tmp_path)
    check(architecture, device_map(architecture, **places), folder)


def test_a_tied_model_whose_embedding_is_on_disk_equals_generate_and_grows(tmp_path):
    config = MODELS["llama"]()
    config.tie_word_embeddings = True
    folder = save(config, tmp_path)
    places = device_map("llama", embedding="disk", layers=["cpu", "disk", "cpu"], head="disk")
    assert check("llama", places, folder).info.tied_embeddings


@pytest.mark.parametrize(
    "places",
    [{"model.embed_tokens": "cpu"}, {"": "cpu", "model.nothing": "cpu"}, {"": "cuda:99"}],
    ids=["not all modules", "a module that is not there", "a device that is not there"],
)
def test_a_wrong_map_is_refused_and_shown(places, tmp_path):
    folder = save(MODELS["llama"](), tmp_path)
    with pytest.raises(Refused) as caught:
        InprocEngine(folder, device_map=json.dumps(places))
    assert json.dumps(places) in str(caught.value)


def test_an_adapter_on_a_model_that_is_partly_on_disk_is_refused(tmp_path):
    folder = save(MODELS["llama"](), tmp_path)
    places = device_map("llama", embedding="cpu", layers=["cpu", "disk", "cpu"], head="cpu")
    with pytest.raises(Refused, match="whole model in memory"):
        InprocEngine(folder, device_map=json.dumps(places), adapter_folder=str(tmp_path))


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("setting", ["auto", "cuda:0"])
def test_a_model_on_a_gpu_equals_generate(architecture, setting, tmp_path):
    folder = save(MODELS[architecture](), tmp_path)
    engine = InprocEngine(folder, device_map=setting, max_running_sequences=4)
    assert all("cuda" in place or place.isdigit() for place in engine.info.device_map.values())
    assert engine.generate(PROMPTS, max_new_tokens=NEW) == generated(folder)


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", MODELS)
def test_a_model_between_a_gpu_and_the_cpu_equals_generate_and_grows(architecture, tmp_path):
    folder = save(MODELS[architecture](), tmp_path)
    check(
        architecture,
        device_map(architecture, embedding="cpu", layers=[0, 0, "cpu"], head=0),
        folder,
    )


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("setting", ["auto", "balanced", "sequential"])
def test_a_model_over_two_gpus_equals_generate(architecture, setting, tmp_path):
    folder = save(MODELS[architecture](), tmp_path)
    engine = InprocEngine(folder, device_map=setting, max_running_sequences=4)
    assert engine.generate(PROMPTS, max_new_tokens=NEW) == generated(folder)
    places = device_map(architecture, embedding=0, layers=[0, 1, 1], head=1)
    check(architecture, places, folder)
