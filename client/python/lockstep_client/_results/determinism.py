"""How far results can be reproduced."""

from dataclasses import dataclass
from typing import Any, Self

from lockstep.v1 import generation_pb2 as generation_pb


@dataclass(frozen=True, slots=True)
class Determinism:
    """How far a result can be reproduced.

    Attributes:
        level: `seeded`, `batch_invariant` or `bitwise`.
        dtype: type of weights and KV cache.
        rng: name of the random generator.
        attention: name of the attention implementation.
        model_fingerprint: SHA-256 over the weights' manifest, hexadecimal.
    """

    level: str
    dtype: str
    rng: str
    attention: str
    model_fingerprint: str

    @classmethod
    def from_message(cls, message: generation_pb.Determinism) -> Self:
        """Reads the wire form."""
        return cls(
            cls.level_name(message.level),
            message.dtype,
            message.rng,
            message.attention,
            message.model_fingerprint,
        )

    @staticmethod
    def level_name(level: generation_pb.DeterminismLevel) -> str:
        """Returns the name of a level."""
        return enum_name(generation_pb.DeterminismLevel, level, "DETERMINISM_LEVEL_")


def enum_name(enum: Any, value: int, prefix: str) -> str:
    """Returns an enum value's name without its prefix, in lower case."""
    if value not in enum.values():
        return f"unknown_{value}"
    name: str = enum.Name(value)
    return name.removeprefix(prefix).lower()
