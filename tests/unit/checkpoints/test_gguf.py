import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, TokenType, dequantize, quantize
from safetensors.torch import load_file
from transformers.convert_slow_tokenizer import bytes_to_unicode

from checkpoints import DEFAULT_MODEL, CheckpointError, resolve, smollm2
from tests.checkpoint_factory import make_checkpoint

Q4_1, F32 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.F32

# GGUF name and transformers' name, of one layer and of the rest.
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Orders the rows of a query or key projection as llama.cpp does: pairs side by side."""
    split = weight.reshape(heads, 2, -1, weight.shape[-1])  # two halves of each head
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


def write_gguf(
    path: Path, folder: Path, *, architecture: str = "llama", pre: str = "gpt-2", merge: str = "a b"
) -> None:
    """Writes the tiny Llama of `folder` as GGUF: matrices of its layers as Q4_1, the rest as is."""
    config = json.loads((folder / "config.json").read_text())
    weights = {
        name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = ["<s>", *bytes_to_unicode().values(), "ab"]
    tokens += [f"filler{number}" for number in range(config["vocab_size"] - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_merges([merge])
    writer.add_token_types([TokenType.CONTROL] + [TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_eos_token_id(0)
    for ours, theirs in OTHER_NAMES.items():
        writer.add_tensor(f"{ours}.weight", weights[f"{theirs}.weight"])
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in LAYER_NAMES.items():
            weight = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in heads:
                weight = interleave(weight, heads[ours])
            kind = Q4_1 if weight.ndim == 2 else F32
            data = quantize(weight, kind) if kind is Q4_1 else weight
            writer.add_tensor(f"blk.{layer}.{ours}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "original", "llama")


def test_a_gguf_file_becomes_dense_weights_and_a_tokenizer_once(original: Path, tmp_path: Path):
    source = tmp_path / "tiny.Q4_1.gguf"
    write_gguf(source, original)
    checkpoint = resolve(str(source), need="model")

    assert checkpoint.name == "tiny.Q4_1"
    expected = load_file(original / "model.safetensors")
    actual = load_file(checkpoint.folder / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, weight in expected.items():
        if name.startswith("model.layers.") and weight.ndim == 2:
            weight = torch.from_numpy(dequantize(quantize(weight.numpy(), Q4_1), Q4_1))
        assert torch.equal(actual[name], weight), name
    assert json.loads((checkpoint.folder / "config.json").read_text())["dtype"] == "float32"

    # The file is known by its content: neither its name nor its place converts it again.
    before = (checkpoint.folder / "model.safetensors").stat().st_mtime_ns
    again = resolve(str(source), need="model")
    assert (again.folder / "model.safetensors").stat().st_mtime_ns == before
    # The conversion for the model serves the tokenizer service too.
    assert resolve(str(source), need="tokenizer").folder == checkpoint.folder


def test_both_services_get_the_same_tokenizer_byte_for_byte(original: Path, tmp_path: Path):
    source = tmp_path / "tiny.gguf"
    write_gguf(source, original, pre="smollm")
    alone = resolve(str(source), need="tokenizer").folder
    assert not list(alone.glob("*.safetensors"))
    beside_weights = resolve(str(source), need="model").folder
    assert alone != beside_weights
    assert (alone / "tokenizer.json").read_bytes() == (
        beside_weights / "tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pre": "some-model-of-tomorrow"}, "cuts text is not known"),
        ({"merge": "a c"}, "out of vocabulary"),
        ({"architecture": "unheard-of"}, "unheard-of"),
    ],
    ids=["cut", "merges", "architecture"],
)
def test_an_unknown_file_is_refused_with_its_reason(original: Path, tmp_path: Path, changes, says):
    source = tmp_path / "tiny.gguf"
    write_gguf(source, original, **changes)
    with pytest.raises(CheckpointError, match=says) as caught:
        resolve(str(source), need="model")
    assert "Hugging Face folder" in str(caught.value)


@pytest.mark.parametrize("size", [4, 20, 2000], ids=lambda size: f"{size} bytes")
def test_a_file_that_is_cut_off_is_refused(original: Path, tmp_path: Path, size):
    source = tmp_path / "tiny.gguf"
    write_gguf(source, original)
    source.write_bytes(source.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"tiny\.gguf could not be converted"):
        resolve(str(source), need="tokenizer")


@pytest.mark.default_model
def test_the_default_model_has_the_files_values(monkeypatch):
    monkeypatch.delenv("LOCKSTEP_CACHE")  # the user's own, so that nothing is converted twice
    checkpoint = resolve(DEFAULT_MODEL, need="model")
    weights = load_file(checkpoint.folder / "model.safetensors")
    stored = {tensor.name: tensor for tensor in GGUFReader(smollm2.gguf()).tensors}

    def value(name: str) -> torch.Tensor:
        return torch.from_numpy(dequantize(stored[name].data, stored[name].tensor_type))

    def rows_in_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
        return weight.reshape(heads, -1, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)

    assert torch.equal(weights["model.embed_tokens.weight"], value("token_embd.weight"))
    for layer in (0, 13, 29):
        prefix, block = f"model.layers.{layer}", f"blk.{layer}"
        down, query, key = value(f"{block}.ffn_down.weight"), f"{block}.attn_q", f"{block}.attn_k"
        assert torch.equal(weights[f"{prefix}.mlp.down_proj.weight"], down)
        queries = rows_in_order(value(f"{query}.weight"), heads=9)
        assert torch.equal(weights[f"{prefix}.self_attn.q_proj.weight"], queries)
        keys = rows_in_order(value(f"{key}.weight"), heads=3)
        assert torch.equal(weights[f"{prefix}.self_attn.k_proj.weight"], keys)
