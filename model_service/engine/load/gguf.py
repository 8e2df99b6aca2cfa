"""`python -m model_service.engine.load.gguf SOURCE FOLDER`: a GGUF file's weights as safetensors.

The weights become dense float32. That is exact; bfloat16 is not: the blocks of most GGUF types
hold a scale and an offset per 32 values, and their results need more than its eight bits.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, cast

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from checkpoints import cache

# Ids of tokens that end a turn of a chat, or a message of one.
ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def load(source: Path) -> PreTrainedModel:
    """Loads a GGUF file as a dense float32 model.

    Raises:
        ValueError: the architecture is not known, or tensors are missing.
    """
    reader = GGUFReader(source)
    _check_counts(reader)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        # Without it the weights stay packed, and a packed model cannot be saved.
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"it lacks {', '.join(missing[:3])}")
    if packed := sorted({str(p.dtype) for p in model.parameters()} - {"torch.float32"}):
        raise ValueError(f"its weights were loaded as {', '.join(packed)}")
    _add_ends(model, reader)
    return cast(PreTrainedModel, model)


def _check_counts(reader: GGUFReader) -> None:
    """Checks that there are no more layers than tensors: modules are made before they are filled.

    Raises:
        ValueError: there are.
    """
    for name, field in reader.fields.items():
        if name.endswith(".block_count") and field.contents() > len(reader.tensors):
            raise ValueError(
                f"{name} is {field.contents()}, and the file has {len(reader.tensors)} tensors"
            )


def _add_ends(model: Any, reader: GGUFReader) -> None:
    """Lets the ends of a turn and of a message end sequences, as llama.cpp does.

    transformers takes the end of the text alone, which chat models do not write after a turn.
    """
    given = (reader.get_field(name) for name in ENDS)
    ends = [int(field.contents()) for field in given if field is not None]
    defaults = model.generation_config
    own = defaults.eos_token_id
    own = own if isinstance(own, list) else [] if own is None else [own]
    if more := [token_id for token_id in dict.fromkeys(ends) if token_id not in own]:
        defaults.eos_token_id = [*own, *more]


def main() -> int:
    """Writes `config.json`, `generation_config.json` and the weights, or prints why not."""
    parser = argparse.ArgumentParser(
        prog="python -m model_service.engine.load.gguf", description=__doc__
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        model = load(arguments.source)
        num_bytes = sum(parameter.nbytes for parameter in model.parameters())
        cache.check_room(arguments.folder, num_bytes)
        model.save_pretrained(arguments.folder)
    except (ValueError, OSError, NotImplementedError) as error:
        print(str(error).splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
