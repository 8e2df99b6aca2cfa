"""How far results can be reproduced."""

from dataclasses import dataclass
from typing import Self

from lockstep.v1 import generation_pb2 as generation_pb

from lockstep_client._results.reading import read


@dataclass(frozen=True, slots=True)
class Determinism:
    """How far a result can be reproduced.

    Attributes:
        level: `seeded`, `batch_invariant` or `bitwise`.
        dtype: type of weights and KV cache.
        rng: name of the random generator.
        attention: name of the attention implementation.
        model_fingerprint: SHA-256 over the weights' manifest, hexadecimal.
        weight_format: type in which linear layers keep their weights: that of `dtype`, or `int8`;
            empty from an older server.
    """

    level: str
    dtype: str
    rng: str
    attention: str
    model_fingerprint: str
    weight_format: str

    @classmethod
    def from_message(cls, message: generation_pb.Determinism) -> Self:
        """Reads the wire form."""
        return read(cls, message)
