"""`python -m checkpoints.gguf_tokenizer SOURCE FOLDER`: a GGUF file's tokenizer as JSON files.

A GGUF file carries the vocabulary and the merges, but only the *name* of how text is cut before
the merges apply (`tokenizer.ggml.pre`). transformers knows the cut of some names and silently uses
GPT-2's for the rest, which changes the ids of digits for SmolLM2; and it sets neither normalizer
nor `ignore_merges`. So the names whose original tokenizer is known stand in a table, and any other
name is refused.

Needs transformers, but no torch.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    GGUF_TOKENIZER_MAPPING,
    convert_gguf_tokenizer,
)

SPECIAL_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unk_token_id",
    "pad_token": "pad_token_id",
}


@dataclass(frozen=True, slots=True)
class Cut:
    """What happens to text before the merges apply.

    Attributes:
        pre_tokenizer: makes the splitter.
        normalizer: makes the normalizer, None for none.
        ignore_merges: whether a piece that is a token as a whole is taken as it is.
    """

    pre_tokenizer: Callable[[], PreTokenizer]
    normalizer: Callable[[], Normalizer] | None = None
    ignore_merges: bool = False


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _split(name: str) -> Callable[[], PreTokenizer]:
    def build() -> PreTokenizer:
        pattern = Regex(GGUF_PRE_TOKENIZER_SPLITS[name])
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), byte_level])

    return build


# By `tokenizer.ggml.pre`, for byte-level vocabularies. From the `tokenizer.json` of the models
# that the names stand for.
CUTS = {
    "gpt-2": Cut(_gpt2),
    "phi-2": Cut(_gpt2),
    "smollm": Cut(_digits),
    "starcoder": Cut(_digits),
    "refact": Cut(_digits),
    "llama-bpe": Cut(_split("llama-bpe"), ignore_merges=True),
    "tekken": Cut(_split("tekken"), ignore_merges=True),
    "qwen2": Cut(_split("qwen2"), normalizers.NFC),
    "deepseek-r1-qwen": Cut(_split("deepseek-r1-qwen"), normalizers.NFC),
}


class UnknownTokenizerError(ValueError):
    """The file does not say enough to rebuild its tokenizer."""


def read_metadata(source: Path) -> dict[str, Any]:
    """Reads the metadata of a GGUF file, without its tensors' data.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        reader = GGUFReader(source)
        return {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # the reader goes where the bytes send it, and fails anywhere
        raise ValueError(f"it is damaged or cut off: {error}") from error


def build(metadata: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Builds the tokenizer that a GGUF file's metadata describes.

    Raises:
        UnknownTokenizerError: the kind of tokenizer or the way it cuts text is not known.
    """
    described = {
        name: metadata[f"tokenizer.{key}"]
        for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items()
        if f"tokenizer.{key}" in metadata
    }
    try:
        backend, _ = convert_gguf_tokenizer(metadata["general.architecture"], described)
    except Exception as error:  # tokenizers raises no narrower class for a damaged vocabulary
        raise UnknownTokenizerError(f"its tokenizer is not known: {error}") from error
    if described["tokenizer_type"] == "gpt2":
        _set_cut(backend, described.get("pre_tokenizer_type"))
    if described["tokenizer_type"] == "llama" and described.get("add_prefix_space") is False:
        _drop_space_prefix(backend)
    tokens = described["tokens"]
    special = {
        name: tokens[described[key]] for name, key in SPECIAL_TOKENS.items() if key in described
    }
    architecture = metadata["general.architecture"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata.get(f"{architecture}.context_length"),
        add_bos_token=metadata.get(
            "tokenizer.ggml.add_bos_token", described["tokenizer_type"] == "llama"
        ),
        add_eos_token=metadata.get("tokenizer.ggml.add_eos_token", False),
        clean_up_tokenization_spaces=False,
        **special,
    )


def _set_cut(backend: Tokenizer, name: str | None) -> None:
    if name not in CUTS:
        raise UnknownTokenizerError(
            f"how its tokenizer {name or '(no tokenizer.ggml.pre)'} cuts text is not known"
        )
    cut = CUTS[name]
    backend.pre_tokenizer = cut.pre_tokenizer()
    if cut.normalizer is not None:
        backend.normalizer = cut.normalizer()
    backend.model.ignore_merges = cut.ignore_merges


def _drop_space_prefix(backend: Tokenizer) -> None:
    """Leaves texts without the space that SentencePiece puts in front of them.

    transformers reads the flag and makes nothing of it; Gemma's texts have none anyway.
    """
    unprefixed = LlamaTokenizer(add_prefix_space=False).backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = unprefixed.pre_tokenizer
    elif isinstance(backend.normalizer, normalizers.Sequence):  # Phi-3 prepends it there
        backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = unprefixed.decoder


def main() -> int:
    """Writes the tokenizer's files, or prints on standard output why not."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        build(read_metadata(arguments.source)).save_pretrained(arguments.folder)
    except ValueError as error:  # ours, and the reader's for a damaged file
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
