"""A processor at its place among the processors of a sequence."""

from dataclasses import dataclass

from transformers.generation.logits_process import LogitsProcessor


@dataclass(frozen=True, slots=True)
class ProcessorStep:
    """One processor of a sequence.

    Attributes:
        name: its name; None for what keeps forbidden ids out, which no caller asked for.
        apply: maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32.
    """

    name: str | None
    apply: LogitsProcessor
