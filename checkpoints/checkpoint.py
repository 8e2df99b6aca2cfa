"""A checked checkpoint: its name, its folder, its fingerprint."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from checkpoints import digest

# Everything a checkpoint is read from. Nothing else in its folder is ever opened.
SUFFIXES = (".json", ".safetensors", ".jinja", ".txt", ".model")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked folder in Hugging Face's layout.

    Attributes:
        name: what people call it: `smollm2-135m-instruct`, a folder's name or a hub id.
        folder: where its files are.
    """

    name: str
    folder: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and hashes of its files, lower-case hexadecimal.

        Equal fingerprints mean equal bytes, wherever the folders are.
        """
        manifest = {path.name: digest.sha256(path) for path in files(self.folder)}
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def files(folder: Path) -> list[Path]:
    """Lists the files that a checkpoint is read from, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
