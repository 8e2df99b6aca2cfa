"""Our operators in C++: built once for this processor, loaded, and described to the compiler."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import cpp_extension

from checkpoints import cache
from model_service.engine.run.decode_graph import recipe

SOURCE = recipe.KERNELS / "library.cpp"  # includes the others
FILE = "kernels.so"

# Sizes of heads that the attention kernel has code for.
HEAD_SIZES = {16, 32, 48, 64, 80, 96, 112, 128, 192, 256}

# No option here changes what a NaN or an infinity does.
OPTIONS = (
    *("-std=c++20", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),
)


# How graphs call the operators: straight, where the dispatcher costs more than a small operator.
SHIMS = {
    "packed_product": (
        "AOTITorchError aoti_torch_cpu_packed_product("
        "AtenTensorHandle x, int64_t index, int64_t size, AtenTensorHandle* product)"
    ),
    "attention": (
        "AOTITorchError aoti_torch_cpu_attention(AtenTensorHandle query, AtenTensorHandle key, "
        "AtenTensorHandle value, AtenTensorHandle slots, AtenTensorHandle positions, "
        "int64_t layer, double scale, int64_t window, double softcap, AtenTensorHandle* sinks, "
        "AtenTensorHandle* out)"
    ),
}


class NoCompiler(Exception):
    """This machine has no C++ compiler, or it refuses the source. The message says which."""


def entry_name() -> str:
    """Returns the name under the folder of compiled code."""
    digest = hashlib.sha256(f"{recipe.environment()}{OPTIONS}".encode()).hexdigest()
    return f"kernels/{digest[:24]}"


def build(folder: Path) -> None:
    """Compiles the library into a folder.

    Raises:
        NoCompiler: no compiler is installed, or it fails.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NoCompiler("No C++ compiler (g++) is installed.")
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
    command = [compiler, *OPTIONS, *includes, str(SOURCE), *libraries, "-ltorch_cpu", "-lc10"]
    try:
        subprocess.run(
            [*command, "-o", str(folder / FILE)], check=True, capture_output=True, text=True
        )
    except OSError as error:
        raise NoCompiler(f"{compiler} cannot be run: {error.strerror}.") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or ["no message"]
        raise NoCompiler(f"{compiler} fails: {lines[0].split('error: ')[-1]}") from error


def build_once(kept: Path) -> Path:
    """Returns the folder of the library below another, building it if that has none yet."""
    return cache.entry(entry_name(), build, kept)


def load(folder: Path) -> None:
    """Makes `torch.ops.lockstep` what the library in a folder defines. Once per process."""
    if is_loaded():
        return
    ctypes.CDLL(str(folder / FILE), ctypes.RTLD_GLOBAL)  # graphs call its functions by name
    torch.library.register_fake("lockstep::packed_product", _packed_product)
    torch.library.register_fake("lockstep::attention", _attention)


def _packed_product(x: Tensor, index: int, size: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], size)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    slots: Tensor,
    positions: Tensor,
    layer: int,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    batch, heads, count, size = query.shape
    return query.new_empty(batch, count, heads, size)


def is_loaded() -> bool:
    """Whether the operators are there."""
    return hasattr(torch.ops.lockstep, "attention")
