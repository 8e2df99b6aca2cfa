"""Builds small tokenizers of every kind, in memory and in milliseconds."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "A tokenizer turns text into ids; a model turns ids into the next id.",
    "Once upon a time there was a model that counted one, two, three, four and five.",
    "it's, don't, we've, they're, I'm: what 'bout that? Yes! big unpadded padded prompt",
    "Grüße aus München: naïve café, señor, Straße. 東京 and Москва are cities too.",
)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SENTENCE_TOKENS = ("<unk>", "<s>", "</s>")
WORD_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_level_bpe(*, vocab_size: int = 400) -> Tokenizer:
    """As GPT-2 and most models since."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_special(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level_bpe_with_template() -> Tokenizer:
    """A byte-level BPE that puts a token before each text and one after, trimming offsets."""
    tokenizer = byte_level_bpe()
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|im_start|>:0 $A:0 <|im_end|>:0",
                pair="<|im_start|>:0 $A:0 <|im_end|>:0 $B:1 <|im_end|>:1",
                special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
            ),
        ]
    )
    return tokenizer


def byte_fallback_bpe() -> Tokenizer:
    """As Llama 2: spaces become ▁, unknown characters become bytes, BOS in front."""
    pieces = [*SENTENCE_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE())
    trained.normalizer = _llama_normalizer()
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    trained.train_from_iterator([text for text in CORPUS if text.isascii()], trainer)
    model = json.loads(trained.to_str())["model"]
    order = [*pieces, *sorted(model["vocab"], key=model["vocab"].get)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(order)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = _llama_normalizer()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(_special(SENTENCE_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def unigram() -> Tokenizer:
    """As T5 and XLM-R: the vocabulary itself has the spellings of control tokens, at score 0."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=[], unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    scores = dict(json.loads(trained.to_str())["model"]["vocab"])
    own = {token: 0.0 for token in SENTENCE_TOKENS}
    scores = {piece: score for piece, score in scores.items() if piece not in own}
    fallback = {f"<0x{byte:02X}>": -20.0 for byte in range(256)}
    tokenizer = Tokenizer(
        models.Unigram([*(own | fallback | scores).items()], unk_id=0, byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(_special(SENTENCE_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT, lower-casing, with words split at white space only."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=_special(WORD_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


# One row per kind of tokenizer: how it is made and what its configuration says.
KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, object]]] = {
    "byte_level": (
        byte_level_bpe,
        {"eos_token": "<|endoftext|>", "chat_template": CHAT_TEMPLATE},
    ),
    "byte_level_template": (
        byte_level_bpe_with_template,
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
    "byte_fallback": (
        byte_fallback_bpe,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "unigram": (unigram, {"eos_token": "</s>", "unk_token": "<unk>"}),
    "word_piece": (
        word_piece,
        {
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
            "clean_up_tokenization_spaces": True,
        },
    ),
}


def make_tokenizer_folder(folder: Path, kind: str = "byte_level", **config: object) -> Path:
    """Writes `tokenizer.json` and `tokenizer_config.json` and returns the folder."""
    make, defaults = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    make().save(str(folder / "tokenizer.json"))
    members = {"tokenizer_class": "PreTrainedTokenizerFast", **defaults, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(members), "utf-8")
    return folder


def _special(tokens: tuple[str, ...]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _llama_normalizer() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
