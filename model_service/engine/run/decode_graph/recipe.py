"""What a compiled step depends on, and so the name under which it is kept.

Weights are not part of it: a graph takes them from the running model, so two
checkpoints of one configuration share it.
"""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch

# Our files that decide what comes out.
SOURCES = ("compiler.py", "operators.py", "recipe.py", "tracing.py")

# The operators in C++, all of whose files do.
KERNELS = Path(__file__).with_name("kernels")


class Product(msgspec.Struct, frozen=True):
    """One product with packed weights: of one linear layer, or of several merged ones."""

    names: list[str]
    """Names of the layers within the decoder."""

    sizes: list[int]
    """Rows of each, in the same order."""


class Recipe(msgspec.Struct, frozen=True):
    """Everything the compiling process is told."""

    model_folder: str
    """Where `config.json` is."""

    dtype: str
    """Of weights and KV cache: `float32` or `bfloat16`."""

    products: list[Product]
    windows: list[int | None]
    """Sliding window by layer, None for full attention."""

    @property
    def key(self) -> str:
        """Changes with anything that could change the compiled code."""
        digest = hashlib.sha256()
        told = msgspec.structs.replace(self, model_folder="")
        digest.update(msgspec.json.encode(told))
        digest.update((Path(self.model_folder) / "config.json").read_bytes())
        digest.update(environment().encode())
        return digest.hexdigest()[:24]


def environment() -> str:
    """Describes what compiles and what runs: our code, its libraries and this processor."""
    digest = hashlib.sha256()
    for path in (*map(Path(__file__).with_name, SOURCES), *sorted(KERNELS.glob("*.[ch]*"))):
        digest.update(path.read_bytes())
    parts = [
        digest.hexdigest(),
        torch.__version__,
        version("transformers"),
        platform.machine(),
        _processor(),
    ]
    return "\n".join(parts)


def _processor() -> str:
    """What the processor can do: code made for more than it has would end the process."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    features = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(features)}))
