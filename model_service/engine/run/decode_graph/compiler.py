"""The process that compiles: `python -m` this module, with a recipe and a folder.

It runs next to the engine in the processor time that the engine does not use, writes each
finished part to the folder, and says so with a line on its output. It
ends when its input is closed, which is when the engine ends, however it ends.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import msgspec
import torch

from checkpoints import CheckpointError, cache
from model_service.engine.run.decode_graph import operators, tracing
from model_service.engine.run.decode_graph.recipe import Recipe

# The two shapes of a step: many rows, in any number, and one. A graph made for
# any number cannot take one: the compiler treats a size of 1 as special.
GRAPHS = ("rows", "row")
FILE = "graph.pt2"

EXAMPLE_ROWS = 16


class Part(msgspec.Struct, frozen=True, tag=True):
    """A line of the process's output: a part is there."""

    name: str
    """`operators`, or one of `GRAPHS`."""

    folder: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The last line of the process's output, if it cannot go on."""

    reason: str


def entry_name(key: str, graph: str) -> str:
    """Returns the name under the folder of compiled code of a graph of the recipe with a key."""
    return f"graphs/{key}-{graph}"


def compile_graph(recipe: Recipe, graph: str, folder: Path) -> None:
    """Compiles one graph into a folder. Takes about a minute."""
    step = tracing.make_step(recipe)
    rows = 1 if graph == "row" else EXAMPLE_ROWS
    dtype = getattr(torch, recipe.dtype)
    embeds = torch.zeros(1, rows, step.decoder.config.get_text_config().hidden_size, dtype=dtype)
    positions = torch.zeros(1, rows, dtype=torch.int64)
    slots = torch.zeros(rows, dtype=torch.int64)
    shapes = None
    if graph == "rows":
        count = torch.export.Dim("count", min=2)
        shapes = {"embeds": {1: count}, "positions": {1: count}, "slots": {0: count}}
    exported = torch.export.export(
        step, (embeds, positions, slots), dynamic_shapes=shapes, strict=False
    )
    torch._inductor.aoti_compile_and_package(
        exported,
        package_path=str(folder / FILE),
        inductor_configs={
            "aot_inductor.package_constants_in_so": False,
            "aot_inductor.custom_ops_to_c_shims": {
                getattr(torch.ops.lockstep, name).default: [shim]
                for name, shim in operators.SHIMS.items()
            },
            # Precompiled for two graphs, headers cost ten times what they save.
            "aot_inductor.precompile_headers": False,
            # As many as there are when it runs: see `CompiledSteps.run`.
            "cpp.dynamic_threads": True,
            "compile_threads": 1,
        },
    )


def main() -> int:
    """Compiles what the recipe in the first argument describes, into the folder in the second."""
    recipe = msgspec.json.decode(sys.argv[1], type=Recipe)
    kept = Path(sys.argv[2])
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(line: Part | Failed) -> None:
        output.write(msgspec.json.encode(line) + b"\n")
        output.flush()

    _step_back()
    warnings.simplefilter("ignore")  # the compiler's, about its own parts
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    try:
        folder = operators.build_once(kept)
        tell(Part("operators", str(folder)))
        operators.load(folder)
        for graph in GRAPHS:

            def write(folder: Path, graph: str = graph) -> None:
                compile_graph(recipe, graph, folder)

            folder = cache.entry(entry_name(recipe.key, graph), write, kept)
            tell(Part(graph, str(folder)))
    except (operators.NoCompiler, CheckpointError) as failure:
        tell(Failed(str(failure)))
        return 1
    except Exception as error:  # the compiler may fail in any way on untried code
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        tell(Failed(f"The model does not compile: {text[:300]}"))
        return 1
    return 0


def _step_back() -> None:
    """Gives every other process precedence, and is the first to be killed if memory runs out."""
    os.nice(19)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_the_engine(scratch: str) -> None:
    """Waits for the end of the input, then ends this process and its compilers."""
    while os.read(0, 1):
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    # Intermediate files are many and of no further use.
    with tempfile.TemporaryDirectory(prefix="lockstep-compiler-") as scratch:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch
        threading.Thread(target=_end_with_the_engine, args=(scratch,), daemon=True).start()
        status = main()
    sys.exit(status)
