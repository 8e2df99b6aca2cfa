"""Every type of GGUF blocks against the `gguf` package's own reading of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFReader,
    GGUFWriter,
    dequantize,
)
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

from model_service.engine.load import gguf
from tests.gguf_factory import LAYER_NAMES, write_gguf

SIZE = 256  # the longest block

# Where a block of values that need no rounding keeps its scales, two bytes each.
SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
ROUNDED = ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def random_blocks(weight: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Fills blocks with anything but their scales, which would be no numbers."""
    values, size = GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(0)
    count = weight.size // values
    blocks = generator.integers(0, 256, (count, size), dtype=np.uint8)
    for place in SCALES[kind.name]:
        scales = generator.uniform(0.01, 0.1, (count, 1)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8)
    return blocks.reshape(len(weight), -1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=SIZE,
        intermediate_size=SIZE,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    path = tmp_path_factory.mktemp("llama")
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("name", [*ROUNDED, *SCALES])
def test_blocks_become_the_weights_they_stand_for(folder, tmp_path, name):
    kind = GGMLQuantizationType[name]
    path = tmp_path / "tiny.gguf"
    options = {} if name in ROUNDED else {"blocks": random_blocks}
    write_gguf(path, folder, kind=kind, **options)
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    weights = gguf.load(path).state_dict()
    for ours in ("attn_v", "attn_output", "ffn_up", "ffn_down"):  # those whose rows stay in order
        tensor = stored[f"blk.0.{ours}.weight"]
        assert tensor.tensor_type == kind
        expected = dequantize(tensor.data, kind)
        got = weights[f"model.layers.0.{LAYER_NAMES[ours]}.weight"].numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("eot", "ends"), [(None, 0), (0, 0), (5, [0, 5])])
def test_the_end_of_a_turn_ends_a_sequence_too(folder, tmp_path, monkeypatch, eot, ends):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, folder, eot=eot)
    monkeypatch.setattr(sys, "argv", ["gguf", str(path), str(tmp_path / "converted")])
    assert gguf.main() == 0
    defaults = GenerationConfig.from_pretrained(tmp_path / "converted")
    assert defaults.eos_token_id == ends


def test_more_blocks_than_tensors_are_refused_at_once(tmp_path: Path):
    writer = GGUFWriter(tmp_path / "bad.gguf", "llama")
    writer.add_block_count(10**9)
    writer.add_tensor("token_embd.weight", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="block_count is 1000000000, and the file has 1 tensors"):
        gguf.load(tmp_path / "bad.gguf")
