"""Writes tiny Llamas as GGUF files, in any type of blocks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize
from safetensors.torch import load_file
from transformers.convert_slow_tokenizer import bytes_to_unicode

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
    path: Path,
    folder: Path,
    *,
    architecture: str = "llama",
    pre: str = "gpt-2",
    merge: str = "a b",
    eot: int | None = None,
    kind: GGMLQuantizationType = Q4_1,
    blocks: Callable[[np.ndarray, GGMLQuantizationType], np.ndarray] = quantize,
) -> None:
    """Writes the tiny Llama of `folder` as GGUF.

    Args:
        path: the file.
        folder: the checkpoint.
        architecture: what the file says it is.
        pre: name of the pre-tokenizer.
        merge: the only merge of the tokenizer.
        eot: id of the token that ends a turn, if the file names one.
        kind: type of the matrices of its layers; the rest is float32.
        blocks: makes the bytes of a matrix.
    """
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
    if eot is not None:
        writer.add_eot_token_id(eot)
    for ours, theirs in OTHER_NAMES.items():
        writer.add_tensor(f"{ours}.weight", weights[f"{theirs}.weight"])
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in LAYER_NAMES.items():
            weight = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in heads:
                weight = interleave(weight, heads[ours])
            name = f"blk.{layer}.{ours}.weight"
            if weight.ndim == 2:
                writer.add_tensor(name, blocks(weight, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, weight, raw_dtype=F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
