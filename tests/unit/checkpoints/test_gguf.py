import json
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize, quantize
from safetensors.torch import load_file

from checkpoints import DEFAULT_MODEL, CheckpointError, resolve, smollm2
from tests.checkpoint_factory import make_checkpoint
from tests.gguf_factory import write_gguf

Q4_1 = GGMLQuantizationType.Q4_1


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
def test_a_file_that_is_cut_off_is_refused(original: Path, tmp_path: Path, size, capfd):
    source = tmp_path / "tiny.gguf"
    write_gguf(source, original)
    source.write_bytes(source.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"tiny\.gguf could not be converted \(it is damaged"):
        resolve(str(source), need="tokenizer")
    assert "Traceback" not in capfd.readouterr().err


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
