"""Writes tiny, randomly initialized checkpoints that behave like real ones.

A checkpoint is a Hugging Face folder: `config.json`, `model.safetensors`,
`tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and
`generation_config.json`. It is made in a fraction of a second and needs no
download, and its text round-trips byte for byte.

The weights are large enough that greedy continuations vary and the best token
leads by a real margin, so that equal tokens mean equal logits and not luck.
Sliding windows are shorter than the prompts of the tests (`SLIDING_WINDOW`).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)  # ids 0, 1, 2
END_OF_TEXT_ID, TURN_START_ID, TURN_END_ID = 0, 1, 2

CONTEXT_LENGTH = 256
SLIDING_WINDOW = 8
VOCABULARY_SIZE = 320

HIDDEN_SIZE = 64
HEAD_COUNT = 4
KEY_VALUE_HEAD_COUNT = 2
HEAD_SIZE = HIDDEN_SIZE // HEAD_COUNT
FEED_FORWARD_SIZE = 128
INITIALIZER_RANGE = 0.3

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_CORPUS = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "A tokenizer turns text into ids; a model turns ids into the next id.",
    "Big unpadded five token prompts and padded three token prompts give the same answer.",
    "Once upon a time there was a model that counted one, two, three, four and five.",
    "Grüße aus München: naïve café, señor, Straße. 東京 and Москва are cities too. 🙂",
)

_SHARED = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": FEED_FORWARD_SIZE,
    "num_attention_heads": HEAD_COUNT,
    "max_position_embeddings": CONTEXT_LENGTH,
    "initializer_range": INITIALIZER_RANGE,
    "bos_token_id": None,
    "eos_token_id": END_OF_TEXT_ID,
    "pad_token_id": None,
}
_GROUPED_QUERY = _SHARED | {"num_key_value_heads": KEY_VALUE_HEAD_COUNT, "head_dim": HEAD_SIZE}
_ALTERNATING_LAYERS = ["sliding_attention", "full_attention"] * 2

# One row per architecture: how its configuration is made.
ARCHITECTURES: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY_SIZE,
        n_positions=CONTEXT_LENGTH,
        n_embd=HIDDEN_SIZE,
        n_inner=FEED_FORWARD_SIZE,
        n_layer=3,
        n_head=HEAD_COUNT,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
    ),
    "llama": lambda: LlamaConfig(**_GROUPED_QUERY, num_hidden_layers=3),
    "qwen2": lambda: Qwen2Config(
        **{key: value for key, value in _GROUPED_QUERY.items() if key != "head_dim"},
        num_hidden_layers=3,
    ),
    "qwen3": lambda: Qwen3Config(**_GROUPED_QUERY, num_hidden_layers=3),
    "mistral": lambda: MistralConfig(
        **_GROUPED_QUERY, num_hidden_layers=3, sliding_window=SLIDING_WINDOW
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_GROUPED_QUERY,
        num_hidden_layers=len(_ALTERNATING_LAYERS),
        layer_types=_ALTERNATING_LAYERS,
        sliding_window=SLIDING_WINDOW,
        query_pre_attn_scalar=HEAD_SIZE,
        # Tied, its scaled embeddings outshout the layers and repeat the last token.
        tie_word_embeddings=False,
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_SHARED, num_hidden_layers=3),
}


def make_checkpoint(
    folder: Path,
    architecture: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    vocab_size: int = VOCABULARY_SIZE,
) -> Path:
    """Writes a checkpoint and returns its folder.

    Args:
        folder: where to write; made if it does not exist.
        architecture: a key of `ARCHITECTURES`.
        seed: of the weights. Equal seeds give equal bytes.
        dtype: of the weights as saved.
        vocab_size: ids of the tokenizer and rows of the embedding alike.
    """
    config = ARCHITECTURES[architecture]()
    config.vocab_size = vocab_size
    config.dtype = dtype
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(vocab_size).save_pretrained(folder)
    model = make_model(config, seed).to(dtype)
    model.generation_config = GenerationConfig(
        eos_token_id=END_OF_TEXT_ID, bos_token_id=config.bos_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    return folder


def make_tokenizer(vocab_size: int = VOCABULARY_SIZE) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE of exactly `vocab_size` ids, without a pad token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"The corpus gives {tokenizer.get_vocab_size()} ids, not {vocab_size}.")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def make_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Makes a model whose every weight matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        # Fresh norms are 1 and fresh biases 0, which would hide a forgotten one.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model
