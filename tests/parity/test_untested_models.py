"""A model that nobody tried either equals `generate` or is refused at start. It never lies."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPTJConfig,
    GptOssConfig,
    MambaConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Starcoder2Config,
)

from tests.engine_harness import InprocEngine

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GATED = {**SMALL, **TOKENS, "intermediate_size": 32, "num_key_value_heads": 1}

FAST = {
    # Soft-capped scores, alternating windows.
    "gemma2": Gemma2Config(**GATED, head_dim=16, sliding_window=6),
    # Attention sinks, experts.
    "gpt_oss": GptOssConfig(
        **GATED, head_dim=16, sliding_window=6, num_local_experts=2, num_experts_per_tok=1
    ),
    "mixtral": MixtralConfig(**GATED, num_local_experts=2),
    # Merged projections.
    "phi3": Phi3Config(**GATED),
    "starcoder2": Starcoder2Config(**GATED, sliding_window=6),
}

COMPAT = {
    # Learned positions with an offset, read from the length of the cache.
    "opt": OPTConfig(**SMALL, ffn_dim=32, max_position_embeddings=64, word_embed_proj_dim=32),
    "gptj": GPTJConfig(vocab_size=64, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=64),
    "bloom": BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2),
    "falcon": FalconConfig(**SMALL, alibi=True),
    "mamba": MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2),
}

PROMPTS = [[3, 5, 7, 9, 11, 2, 4, 6, 8, 10, 12], [5], [9, 8, 7]]
NEW = 12


def save(config: PreTrainedConfig, folder) -> None:
    config.initializer_range = 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("path", "config"),
    [("fast", config) for config in FAST.values()] + [("compat", c) for c in COMPAT.values()],
    ids=[*FAST, *COMPAT],
)
def test_a_model_that_is_served_equals_generate(path, config, tmp_path):
    save(config, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    expected = []
    for prompt in PROMPTS:
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        expected.append(output[0, len(prompt) :].tolist())
    engine = InprocEngine(tmp_path, max_running_sequences=4)
    assert engine.info.execution_path == path
    assert engine.generate(PROMPTS, max_new_tokens=NEW) == expected
