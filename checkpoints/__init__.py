"""Turns what `--model` names into a checked local folder of safetensors and JSON.

Shared by both services. Knows no wire, no service and no torch: what needs torch runs as a
process of its own.
"""

from checkpoints.adapter import Adapter
from checkpoints.adapter import resolve as resolve_adapter
from checkpoints.checkpoint import Checkpoint
from checkpoints.errors import CheckpointAbsent, CheckpointError
from checkpoints.resolution import resolve
from checkpoints.smollm2 import NAME as DEFAULT_MODEL

__all__ = [
    "DEFAULT_MODEL",
    "Adapter",
    "Checkpoint",
    "CheckpointAbsent",
    "CheckpointError",
    "resolve",
    "resolve_adapter",
]
