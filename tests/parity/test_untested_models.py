"""A model that nobody tried either equals `generate` or is refused at start. It never lies."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    GPTJConfig,
    LlamaConfig,
    MambaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    RecurrentGemmaConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from model_service.engine.load.loader import Refused
from tests.engine_harness import InprocEngine

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GATED = {**SMALL, **TOKENS, "intermediate_size": 32, "num_key_value_heads": 1}

PROMPTS = [[3, 5, 7, 9, 11, 2, 4, 6, 8, 10, 12], [5], [9, 8, 7]]
NEW = 12


def save(config: PreTrainedConfig, folder: Path, **options: object) -> Path:
    config.initializer_range = 0.2
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.forced_eos_token_id = None
    model.save_pretrained(folder, **options)
    return folder


def generated(folder: Path, prompts: list[list[int]], new: int) -> list[list[int]]:
    rows = []
    for prompt in prompts:
        # Anew each time: some models remember how long the last text was.
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        rows.append(output[0, len(prompt) :].tolist())
    return rows


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


ODD = {
    # A decoder that was cut out of an encoder-decoder model.
    "half of bart": BartConfig(
        **{"vocab_size": 64, "d_model": 32, "max_position_embeddings": 64},
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
    ),
    "bert as a decoder": BertConfig(**SMALL, intermediate_size=32, is_decoder=True),
    "some windows": Qwen2Config(
        **GATED, sliding_window=4, use_sliding_window=True, max_window_layers=1
    ),
    "linear scaling": LlamaConfig(**GATED, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "yarn": LlamaConfig(
        **GATED,
        max_position_embeddings=64,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "llama 3 scaling": LlamaConfig(
        **GATED,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
}


@pytest.mark.parametrize("config", ODD.values(), ids=ODD)
def test_an_odd_model_equals_generate(config, tmp_path):
    folder = save(config, tmp_path)
    expected = generated(folder, PROMPTS, NEW)
    engine = InprocEngine(folder, max_running_sequences=4)
    assert engine.generate(PROMPTS, max_new_tokens=NEW) == expected


SCALED = {
    "dynamic": LlamaConfig(
        **GATED,
        max_position_embeddings=32,
        rope_scaling={"rope_type": "dynamic", "factor": 4.0},
    ),
    "longrope": Phi3Config(
        **GATED,
        max_position_embeddings=64,
        original_max_position_embeddings=32,
        rope_scaling={
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [3.0] * 8,
            "original_max_position_embeddings": 32,
        },
    ),
}


@pytest.mark.parametrize("config", SCALED.values(), ids=SCALED)
def test_a_context_ends_where_rotary_positions_would_depend_on_its_length(config, tmp_path):
    folder = save(config, tmp_path)
    engine = InprocEngine(folder, max_running_sequences=4)
    assert engine.info.context_length == 32
    prompts = [PROMPTS[0], PROMPTS[0] + PROMPTS[2], PROMPTS[0] * 2]
    expected = [generated(folder, [prompt], 32 - len(prompt))[0] for prompt in prompts]
    assert engine.generate(prompts, max_new_tokens=32) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**GATED),
        GPTJConfig(vocab_size=64, n_embd=32, n_layer=2, n_head=2, rotary_dim=8),
        MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2),
    ],
    ids=["llama", "gptj", "mamba"],
)
def test_every_type_starts_and_answers(config, dtype, tmp_path):
    engine = InprocEngine(save(config, tmp_path), dtype=dtype, max_running_sequences=4)
    assert engine.info.dtype == dtype
    assert [len(row) for row in engine.generate(PROMPTS, max_new_tokens=3)] == [3, 3, 3]


def test_a_checkpoint_in_shards_equals_generate(tmp_path):
    folder = save(LlamaConfig(**GATED), tmp_path, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    engine = InprocEngine(folder, max_running_sequences=4)
    assert engine.generate(PROMPTS, max_new_tokens=NEW) == generated(folder, PROMPTS, NEW)


REFUSED = {
    # The class knows no windows, but Hugging Face's cache forgets by the field.
    "a window nobody reads": (LlamaConfig(**GATED, sliding_window=6), "other logits"),
    "an encoder": (BertConfig(**SMALL, intermediate_size=32), "other logits"),
    "state inside of modules": (
        RecurrentGemmaConfig(
            **GATED, lru_width=32, attention_window_size=6, block_types=["recurrent", "attention"]
        ),
        "cannot be served",
    ),
}


@pytest.mark.parametrize(("config", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_model_that_neither_path_serves_is_refused_with_both_reasons(config, reason, tmp_path):
    with pytest.raises(Refused, match=reason) as caught:
        InprocEngine(save(config, tmp_path))
    assert "On the fast path" in str(caught.value)
    assert "On the compat path" in str(caught.value)


def test_an_encoder_and_a_decoder_are_refused(tmp_path):
    config = T5Config(vocab_size=64, d_model=32, num_layers=1, num_heads=2, d_ff=32, d_kv=16)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(Refused, match="encoder"):
        InprocEngine(tmp_path)


def test_a_model_with_code_of_its_own_is_refused(tmp_path):
    folder = save(LlamaConfig(**GATED), tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "code.Model"}}
    path.write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('this code must never run')")
    with pytest.raises(Refused):
        InprocEngine(folder)


def test_a_checkpoint_that_lacks_a_weight_is_refused_instead_of_filled_at_random(tmp_path):
    folder = save(LlamaConfig(**GATED), tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda weights: weights.pop(name))
    with pytest.raises(Refused, match=f"lacks 1 of the weights .* {name}"):
        InprocEngine(folder)


def test_a_weight_of_another_shape_is_refused(tmp_path):
    folder = save(LlamaConfig(**GATED), tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda weights: weights.update({name: weights[name][:-1].clone()}))
    with pytest.raises(Refused, match=r"up_proj\.weight has the shape \[31, 32\], not \[32, 32\]"):
        InprocEngine(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_is_refused_by_name(value, tmp_path):
    folder = save(LlamaConfig(**GATED), tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda weights: weights[name].view(-1)[5:6].fill_(value))
    with pytest.raises(Refused, match=f"{name} contains NaN, or values that are infinite"):
        InprocEngine(folder)


def test_finite_weights_whose_sum_overflows_are_numbers(tmp_path):
    folder = save(LlamaConfig(**GATED | {"hidden_size": 256}), tmp_path)
    change_weights(folder, lambda weights: weights["model.norm.weight"].fill_(300.0))
    engine = InprocEngine(folder, dtype="float16")
    assert engine.info.dtype == "float16"
    assert len(engine.generate([[3, 5, 7]])[0]) == 8


def test_weights_that_the_model_does_not_use_are_named_in_the_log(tmp_path, caplog):
    folder = save(LlamaConfig(**GATED), tmp_path)
    change_weights(folder, lambda weights: weights.update({"surprise": torch.ones(2)}))
    InprocEngine(folder)
    assert "surprise" in caplog.text


def test_logits_too_large_for_the_type_are_refused(tmp_path):
    folder = save(LlamaConfig(**GATED), tmp_path)
    change_weights(folder, lambda weights: weights["lm_head.weight"].mul_(1e5))
    with pytest.raises(Refused, match=r"NaN or infinite logits as torch\.float16|contains NaN"):
        InprocEngine(folder, dtype="float16")
