"""Tiny models of every architecture that is tested against `generate`, and what is known of each.

`docs/models.md` has a row for each, which a test compares with what the engine
does. The seven of `checkpoint_factory` come first; they are tested at length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import transformers as hf
from transformers import PreTrainedConfig

from tests.checkpoint_factory import ARCHITECTURES, INITIALIZER_RANGE, VOCABULARY_SIZE

WINDOW = 6
LENGTH = 128


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        make: makes its configuration.
        path: which path serves it.
        about: what is particular about it.
        weights: standard deviation of its weights.
    """

    make: Callable[[], PreTrainedConfig]
    path: Literal["fast", "compat"]
    about: str
    weights: float = INITIALIZER_RANGE


_IDS = {"vocab_size": VOCABULARY_SIZE, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_POSITIONS = {"max_position_embeddings": LENGTH}
_PLAIN = {**_IDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_GATED = {**_PLAIN, **_POSITIONS, "intermediate_size": 32, "num_key_value_heads": 1}
_HEADS = {**_GATED, "head_dim": 16}
_GPT = {**_IDS, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}
_ALTERNATING = ["sliding_attention", "full_attention"]
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LATENT = {
    **_GATED,
    "num_key_value_heads": 2,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "topk_group": 1,
}

_FAST: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "cohere": (lambda: hf.CohereConfig(**_GATED), "parallel layers, scaled logits"),
    "cohere2": (
        lambda: hf.Cohere2Config(**_HEADS, sliding_window=WINDOW, layer_types=_ALTERNATING),
        "some layers without positions",
    ),
    "ctrl": (lambda: hf.CTRLConfig(**_GPT, dff=32), "sinusoidal positions"),
    "ernie4_5": (lambda: hf.Ernie4_5Config(**_HEADS), ""),
    "exaone4": (
        lambda: hf.Exaone4Config(**_HEADS, sliding_window=WINDOW, layer_types=_ALTERNATING),
        "normalized queries and keys",
    ),
    "gemma": (lambda: hf.GemmaConfig(**_HEADS), "scaled embeddings"),
    "gemma2": (
        lambda: hf.Gemma2Config(**_HEADS, sliding_window=WINDOW, tie_word_embeddings=False),
        "soft-capped scores and logits",
    ),
    "glm4": (lambda: hf.Glm4Config(**_HEADS), "half of a head rotated"),
    "gpt_bigcode": (lambda: hf.GPTBigCodeConfig(**_GPT), "one key-value head"),
    "gpt_oss": (
        lambda: hf.GptOssConfig(
            **_HEADS, sliding_window=WINDOW, num_local_experts=2, num_experts_per_tok=1
        ),
        "attention sinks, experts",
    ),
    "granite": (
        lambda: hf.GraniteConfig(**_GATED, logits_scaling=2.0, attention_multiplier=0.3),
        "scaled logits and scores",
    ),
    "mixtral": (lambda: hf.MixtralConfig(**_GATED, num_local_experts=2), "experts"),
    "nemotron": (lambda: hf.NemotronConfig(**_GATED), "squared activation"),
    "olmo": (lambda: hf.OlmoConfig(**_GATED), "norms without weights"),
    "olmo2": (lambda: hf.Olmo2Config(**_GATED), "norms behind the layers"),
    "opt": (
        lambda: hf.OPTConfig(**_PLAIN, **_POSITIONS, ffn_dim=32, word_embed_proj_dim=32),
        "learned positions with an offset",
    ),
    "phi": (lambda: hf.PhiConfig(**_GATED | {"num_key_value_heads": 2}), "a biased head"),
    "phi3": (lambda: hf.Phi3Config(**_GATED, sliding_window=WINDOW), "merged projections"),
    "qwen3_moe": (lambda: hf.Qwen3MoeConfig(**_HEADS, **_EXPERTS), "experts"),
    "smollm3": (lambda: hf.SmolLM3Config(**_GATED), "some layers without positions"),
    "starcoder2": (lambda: hf.Starcoder2Config(**_GATED, sliding_window=WINDOW), "biases"),
}

_COMPAT: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "bamba": (
        lambda: hf.BambaConfig(
            **_GATED,
            mamba_n_heads=8,
            mamba_d_state=8,
            mamba_d_head=8,
            mamba_chunk_size=8,
            attn_layer_indices=[1],
        ),
        "Mamba-2 and attention layers",
    ),
    "bloom": (lambda: hf.BloomConfig(**_IDS, hidden_size=32, n_layer=2, n_head=2), "ALiBi"),
    "codegen": (lambda: hf.CodeGenConfig(**_GPT | {"n_head": 4}, rotary_dim=4), ""),
    "deepseek_v2": (
        lambda: hf.DeepseekV2Config(**_LATENT, n_routed_experts=4, n_group=1, q_lora_rank=None),
        "latent attention, experts",
    ),
    "deepseek_v3": (
        lambda: hf.DeepseekV3Config(**_LATENT, n_routed_experts=4, n_group=2, q_lora_rank=16),
        "latent attention, experts",
    ),
    "falcon": (lambda: hf.FalconConfig(**_PLAIN, alibi=True), "ALiBi"),
    "falcon_h1": (
        lambda: hf.FalconH1Config(
            **_HEADS,
            mamba_d_ssm=32,
            mamba_n_heads=4,
            mamba_d_state=8,
            mamba_d_head=8,
            mamba_chunk_size=8,
        ),
        "Mamba-2 beside attention in every layer",
    ),
    "gemma3n": (
        lambda: hf.Gemma3nTextConfig(
            **_HEADS | {"num_hidden_layers": 4},
            sliding_window=WINDOW,
            vocab_size_per_layer_input=VOCABULARY_SIZE,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=2,
            layer_types=_ALTERNATING * 2,
            laurel_rank=4,
            altup_num_inputs=2,
            activation_sparsity_pattern=None,
            tie_word_embeddings=False,
        ),
        "layers that share keys and values; its vocabulary does not grow",
    ),
    "gpt_neo": (
        lambda: hf.GPTNeoConfig(
            **_IDS,
            **_POSITIONS,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            attention_types=[[["global", "local"], 1]],
            window_size=WINDOW,
        ),
        "local attention layers",
    ),
    "gptj": (lambda: hf.GPTJConfig(**_GPT, rotary_dim=8), "interleaved rotary positions"),
    "jamba": (
        lambda: hf.JambaConfig(
            **_GATED,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_experts=2,
            use_mamba_kernels=False,
            mamba_d_state=8,
        ),
        "Mamba and attention layers, experts",
    ),
    "lfm2": (
        lambda: hf.Lfm2Config(
            **_GATED,
            layer_types=["conv", "full_attention"],
            block_multiple_of=8,
            block_auto_adjust_ff_dim=False,
        ),
        "convolution and attention layers",
    ),
    "llama4_text": (
        lambda: hf.Llama4TextConfig(
            **_HEADS,
            intermediate_size_mlp=32,
            num_local_experts=2,
            num_experts_per_tok=1,
            attention_chunk_size=WINDOW,
            interleave_moe_layer_step=1,
            layer_types=["chunked_attention", "full_attention"],
        ),
        "attention within chunks, experts",
    ),
    "mamba": (
        lambda: hf.MambaConfig(**_IDS, hidden_size=32, num_hidden_layers=2),
        "recurrent state",
    ),
    "mamba2": (
        lambda: hf.Mamba2Config(
            **_IDS,
            hidden_size=32,
            num_hidden_layers=2,
            num_heads=8,
            head_dim=8,
            n_groups=2,
            state_size=16,
            chunk_size=8,
        ),
        "recurrent state",
    ),
    "mpt": (
        lambda: hf.MptConfig(**_IDS, d_model=32, n_heads=2, n_layers=2, max_seq_len=LENGTH),
        "ALiBi",
    ),
    "openai-gpt": (lambda: hf.OpenAIGPTConfig(**_GPT), "keeps no past"),
    "qwen3_next": (
        lambda: hf.Qwen3NextConfig(
            **_HEADS,
            **_EXPERTS,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            shared_expert_intermediate_size=16,
            layer_types=["linear_attention", "full_attention"],
        ),
        "delta-rule and attention layers, experts",
    ),
    "rwkv": (
        lambda: hf.RwkvConfig(
            **_IDS,
            hidden_size=32,
            num_hidden_layers=2,
            attention_hidden_size=32,
            context_length=LENGTH,
        ),
        "recurrent state",
    ),
    "stablelm": (lambda: hf.StableLmConfig(**_GATED), "a quarter of a head rotated"),
    "zamba2": (
        lambda: hf.Zamba2Config(
            **_GATED,
            mamba_d_state=8,
            n_mamba_heads=8,
            mamba_headdim=8,
            mamba_ngroups=1,
            chunk_size=8,
            layers_block_type=["mamba", "hybrid"],
            use_mem_rope=True,
        ),
        "Mamba-2 and shared attention layers",
    ),
}

_AT_LENGTH = {
    "gemma3": "normalized queries and keys, two rotary bases",
    "gpt2": "learned positions, transposed weights",
    "gpt_neox": "parallel layers",
    "llama": "also SmolLM, Yi, Vicuna and others of its layout",
    "mistral": "",
    "qwen2": "biased projections",
    "qwen3": "normalized queries and keys",
}

# Its own code gives a prompt and its tokens one by one other logits, by 1e-3 with large weights.
_TAME = {"zamba2": 0.1}

TESTED = {
    **{name: Architecture(ARCHITECTURES[name], "fast", _AT_LENGTH[name]) for name in _AT_LENGTH},
    **{name: Architecture(make, "fast", about) for name, (make, about) in _FAST.items()},
    **{
        name: Architecture(make, "compat", about, _TAME.get(name, INITIALIZER_RANGE))
        for name, (make, about) in _COMPAT.items()
    },
}
