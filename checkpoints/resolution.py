"""From a name to a checked folder."""

from pathlib import Path

from checkpoints import folder as model_folder
from checkpoints import gguf, hub, smollm2
from checkpoints.checkpoint import Checkpoint
from checkpoints.errors import CheckpointAbsent, CheckpointError
from checkpoints.folder import Need

# Names from before every model of the hub had an owner, for models that are served.
_RENAMED = {
    "distilgpt2": "distilbert/distilgpt2",
    "gpt2": "openai-community/gpt2",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-xl": "openai-community/gpt2-xl",
}


def resolve(model: str, *, need: Need) -> Checkpoint:
    """Turns what `--model` names into a checked local folder.

    The first use of the default model or of a hub id downloads it, and the first use of a GGUF
    file converts it; later uses find the result in the cache.

    Args:
        model: the default's name (`smollm2-135m-instruct`), a folder, a `.gguf` file or a hub id
            (`org/name`, or `org/name@revision`). What exists as a path is taken as one.
        need: `tokenizer` asks for `tokenizer.json`, `model` for `config.json` and safetensors.

    Raises:
        CheckpointAbsent: the model is not found.
        CheckpointError: it is damaged, or holds code or pickles.
    """
    path = Path(model).expanduser()
    if model == smollm2.NAME:
        checkpoint = Checkpoint(model, gguf.default_model(need))
    elif model and path.is_dir():  # an empty name would be the working folder
        checkpoint = Checkpoint(path.resolve().name, path.resolve())
    elif path.is_file():
        checkpoint = Checkpoint(path.stem, gguf.converted(_checked_file(path), need))
    elif hub.is_id(model) and path.suffix != ".gguf" and not model.startswith("."):
        checkpoint = Checkpoint(model, hub.download(model))
    else:
        meant = f" Did you mean {found}?" if (found := _RENAMED.get(model.lower())) else ""
        raise CheckpointAbsent(
            f"The model {model!r} was not found: name an existing folder or .gguf file, a hub id "
            f"(org/name) or {smollm2.NAME}.{meant}"
        )
    model_folder.check(checkpoint.folder, need)
    return checkpoint


def _checked_file(path: Path) -> Path:
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            return path.resolve()
    raise CheckpointError(
        f"{path} is not a GGUF file: name a folder that holds config.json and model.safetensors, "
        "or a GGUF file."
    )
