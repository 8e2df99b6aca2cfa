"""What the small benchmarks share: their command line, and the environment of an engine."""

import argparse
import os
import sys
from pathlib import Path

import checkpoints
from model_service.front.engine_client.process import engine_environment

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def parser(module: str, description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Returns a parser with the options that every small benchmark has.

    Args:
        module: the name of its module.
        description: its docstring.
        rounds: how often everything is measured, unless told otherwise.
    """
    result = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--model", default=checkpoints.DEFAULT_MODEL)
    result.add_argument("--dtype", choices=DTYPES, default="bf16")
    result.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    result.add_argument("--rounds", type=int, default=rounds)
    return result


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the arguments, in a process with the environment that an engine is started with.

    OpenMP reads it when torch is imported: where it is another one, this process starts over.
    """
    arguments = parser.parse_args()
    wanted = engine_environment(os.environ, arguments.threads)
    if wanted != dict(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
    print(f"{arguments.model}, {arguments.dtype}, {arguments.threads} threads\n", flush=True)
    return arguments


def folder(arguments: argparse.Namespace) -> Path:
    """Returns the folder of the model that the arguments name."""
    return checkpoints.resolve(arguments.model, need="model").folder
