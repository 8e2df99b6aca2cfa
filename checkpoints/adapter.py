"""LoRA adapters: folders in the layout of `peft`, checked before anything of them is used.

An adapter is data, as a checkpoint is: JSON and safetensors. Keys of its
configuration that name a module to import, or that change more of a model than
weights that can be merged into it, are refused.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from checkpoints import digest, safetensors_file
from checkpoints.checkpoint import Checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.folder import PICKLES, check_inside, read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# Keys of the configuration that are refused unless they are off.
REFUSED_KEYS = {
    "megatron_config": "names code to import",
    "alora_invocation_tokens": "applies the adapter from some token on, which cannot be merged",
    "arrow_config": "chooses among adapters at every token, which cannot be merged",
    "layer_replication": "repeats layers of the model",
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """A checked folder.

    Attributes:
        folder: where its files are.
    """

    folder: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 over its configuration and weights, lower-case hexadecimal."""
        hashes = [digest.sha256(self.folder / name) for name in (CONFIG, WEIGHTS)]
        return hashlib.sha256(":".join(hashes).encode()).hexdigest()


def resolve(path: str) -> Adapter:
    """Turns what `--adapter` names into a checked folder.

    Raises:
        CheckpointError: it is not a LoRA adapter, is damaged, or holds code or pickles.
    """
    folder = Path(path).expanduser().resolve()
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}: name the folder of a LoRA adapter.")
    if not (folder / WEIGHTS).is_file():
        pickles = [file.name for file in folder.iterdir() if file.suffix in PICKLES]
        instead = f"; {pickles[0]} is a pickle, which is refused" if pickles else ""
        raise CheckpointError(f"{folder} has no {WEIGHTS}{instead}.")
    for name in (CONFIG, WEIGHTS):
        check_inside(folder / name, folder)
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{folder} is an adapter of type {config.get('peft_type')}; this server merges LORA."
        )
    library = str((config.get("auto_mapping") or {}).get("parent_library", "transformers."))
    if not library.startswith("transformers."):
        raise CheckpointError(f"{folder / CONFIG} sets auto_mapping, which names code to import.")
    for key, reason in REFUSED_KEYS.items():
        if config.get(key) is not None:
            raise CheckpointError(f"{folder / CONFIG} sets {key}, which {reason}.")
    safetensors_file.check(folder / WEIGHTS)
    return Adapter(folder)


def fingerprint(checkpoint: Checkpoint, adapter: Adapter | None) -> str:
    """Returns the SHA-256 that names a checkpoint, with what is merged into it."""
    if adapter is None:
        return checkpoint.fingerprint
    both = f"{checkpoint.fingerprint}+{adapter.fingerprint}"
    return hashlib.sha256(both.encode()).hexdigest()
