"""Checks a Hugging Face folder before anything of it is used.

A checkpoint is data: safetensors and JSON. Pickles run code when they are read, `auto_map` names
code to import and `_attn_implementation` code to download, so each is refused, with a remedy.
"""

import json
from pathlib import Path
from typing import Any, Literal

from checkpoints import safetensors_file, token_ids
from checkpoints.checkpoint import files
from checkpoints.errors import CheckpointError

Need = Literal["tokenizer", "model"]

TOKENIZER = "tokenizer.json"

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

# Keys of a configuration that make transformers import or download code.
CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
CODE_PREFIXES = ("_attn_implementation", "attn_implementation")

# Keys of a configuration that say how many modules of a kind there are.
LAYER_KEYS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "num_decoder_layers",
    "decoder_layers",
    "encoder_layers",
    "num_encoder_layers",
    "depth",
)
EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def check(folder: Path, need: Need) -> None:
    """Checks that a folder holds what is needed, and nothing that runs code.

    Raises:
        CheckpointError: something is missing, damaged or refused.
    """
    for path in files(folder):
        check_inside(path, folder)
    if (tokenizer := folder / TOKENIZER).is_file():
        token_ids.check(read_json(tokenizer), tokenizer)
    _check_tokenizer(folder) if need == "tokenizer" else _check_model(folder)


def _check_tokenizer(folder: Path) -> None:
    if not (folder / TOKENIZER).is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer.json. Write one where transformers can read its tokenizer: "
            f"{_command('AutoTokenizer', folder, folder)}"
        )
    for name in ("tokenizer_config.json", "config.json"):
        if (folder / name).is_file():
            _refuse_code(read_json(folder / name), folder / name)


def _check_model(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{folder} has no config.json: it is not a Hugging Face model folder."
        )
    content = read_json(config)
    _refuse_code(content, config)
    weights = _weights(folder)
    if not weights:
        raise CheckpointError(_without_weights(folder))
    shapes = [shape for path in weights for shape in safetensors_file.check(path)]
    _check_counts(content, shapes, config)


def _check_counts(content: dict[str, Any], shapes: list[list[int]], path: Path) -> None:
    """Checks that a configuration asks for no more modules than there are weights for.

    Modules are made one by one before any weight is read: a wrong number would take all day, and
    all memory.

    Raises:
        CheckpointError: it asks for more.
    """
    largest = max((size for shape in shapes for size in shape), default=0)
    for key, value in content.items():
        if isinstance(value, dict):
            _check_counts(value, shapes, path)
        if not isinstance(value, int):
            continue
        # Every layer has a tensor of its own. Experts may be rows of one.
        for keys, most in ((LAYER_KEYS, len(shapes)), (EXPERT_KEYS, max(len(shapes), largest))):
            if key in keys and value > most:
                raise CheckpointError(
                    f"{path} sets {key} to {value}, but the weights in its folder are "
                    f"{len(shapes)} tensors: the file is damaged, or belongs to another model."
                )


def _weights(folder: Path) -> list[Path]:
    """Lists the files that transformers will read the weights from."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    content = read_json(index)
    names = content.get("weight_map")
    if not isinstance(names, dict):
        raise CheckpointError(f"{index} has no weight_map.")
    shards = [folder / str(name) for name in sorted(set(names.values()))]
    for shard in shards:
        if shard.parent != folder or not shard.is_file():
            raise CheckpointError(f"{index} names {shard.name}, which is not in the folder.")
    return shards


def _without_weights(folder: Path) -> str:
    parts = sorted(path.name for path in folder.glob("*.safetensors"))
    if parts:
        return (
            f"{folder} has neither a model.safetensors nor a model.safetensors.index.json, which "
            f"says what is in which file: {len(parts)} files, the first {parts[0]}, are not read "
            "without one. Copy it from the place that the other files come from."
        )
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not pickles:
        return f"{folder} has no model.safetensors."
    target = folder.with_name(f"{folder.name}-safetensors")
    return (
        f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code when it is "
        "read, so it is refused. If you trust its origin, convert it on an isolated "
        f"machine: {_command('AutoModelForCausalLM', folder, target)}"
    )


def _command(auto_class: str, source: Path, target: Path) -> str:
    return (
        f'python -c "import transformers; transformers.{auto_class}'
        f".from_pretrained('{source}').save_pretrained('{target}')\""
    )


def _refuse_code(value: Any, path: Path) -> None:
    """Refuses keys that make transformers run code, at any depth."""
    if isinstance(value, list):
        for item in value:
            _refuse_code(item, path)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        # A flag or an absent value does not name code.
        if (key in CODE_KEYS or key.startswith(CODE_PREFIXES)) and item not in (None, False, True):
            raise CheckpointError(
                f"{path} has the key {key}, which names code to run; this server runs none. "
                "Remove the key if the model works without, or take another model."
            )
        _refuse_code(item, path)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that must hold one JSON object.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: it is damaged.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return content


def check_inside(path: Path, folder: Path) -> None:
    """Refuses a link that leads out of the folder.

    The hub's cache is the exception: its snapshots are links into the `blobs` next to them.

    Raises:
        CheckpointError: the link leads outside.
    """
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    target = path.resolve()
    if not any(target.is_relative_to(place) for place in allowed):
        raise CheckpointError(
            f"{path} is a link to a file outside its folder, which is refused: copy the file into "
            "the folder."
        )
