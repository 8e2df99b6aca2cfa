"""GGUF files: converted once to Hugging Face's layout, and kept in the cache.

The conversions run as processes of their own: they need memory and libraries that the services
do without, and a file that breaks its reader takes down no service.
"""

import subprocess
import sys
from pathlib import Path

from checkpoints import cache, digest, smollm2
from checkpoints.errors import CheckpointError
from checkpoints.folder import Need

# Part of the cache's names. Raise it when a conversion writes something else than before.
FORMAT = 2

TOKENIZER_CONVERTER = "checkpoints.gguf_tokenizer"
# Named, not imported: it is the one part that needs torch.
WEIGHTS_CONVERTER = "model_service.engine.load.gguf"


def default_model(need: Need) -> Path:
    """Returns the folder of the default model, which may not even be downloaded yet."""
    found = _cached(smollm2.NAME, smollm2.GGUF_SHA256, need)
    return found or _convert(smollm2.gguf(), smollm2.NAME, smollm2.GGUF_SHA256, need)


def converted(source: Path, need: Need) -> Path:
    """Returns the folder that a GGUF file was or is now converted to.

    Raises:
        CheckpointError: the file's architecture or tokenizer is not known to transformers.
    """
    sha256 = digest.sha256(source)
    return _cached(source.stem, sha256, need) or _convert(source, source.stem, sha256, need)


def _entry(name: str, sha256: str, need: Need) -> str:
    return f"converted/{name}-{sha256[:16]}-{need}{FORMAT}"


def _cached(name: str, sha256: str, need: Need) -> Path | None:
    """Finds a conversion. One for the model holds the tokenizer too."""
    needs: tuple[Need, ...] = ("model", "tokenizer") if need == "tokenizer" else ("model",)
    folders = (cache.root() / _entry(name, sha256, each) for each in needs)
    return next((folder for folder in folders if folder.is_dir()), None)


def _convert(source: Path, name: str, sha256: str, need: Need) -> Path:
    def write(folder: Path) -> None:
        print(f"Converting {source.name}, once.", file=sys.stderr)
        _run(TOKENIZER_CONVERTER, source, folder)
        if need == "model":
            _run(WEIGHTS_CONVERTER, source, folder)

    return cache.entry(_entry(name, sha256, need), write)


def _run(module: str, source: Path, folder: Path) -> None:
    """Runs a converter.

    It shows its progress on standard error, and says on standard output why it refuses a file.
    """
    command = [sys.executable, "-m", module, str(source), str(folder)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        reason = result.stdout.strip() or "see the message above"
        raise CheckpointError(
            f"{source.name} could not be converted ({reason}): take the Hugging Face folder of "
            "the model instead."
        )
