"""What runs a model, independent of the path.

R: rows of logits wanted, V: ids of the newest revision.
"""

from typing import Literal, Protocol

from torch import Tensor

from model_service.engine.schedule.sequence_cache import SequenceCache
from model_service.engine.sequences.run import Run
from model_service.engine.vocabulary.vocabulary import Vocabulary


class Runner(Protocol):
    """What the engine needs of a model.

    Attributes:
        vocabulary: rows and revisions; grown between steps.
        takes_drafts: whether runs may have drafts, which are forgotten when they are wrong.
        compiled: whether the last step ran as a compiled graph.
    """

    vocabulary: Vocabulary
    takes_drafts: bool
    compiled: bool

    def forward(self, runs: list[Run]) -> Tensor:
        """Advances `num_cached` of every run's sequence and returns `[R, V]` float32."""
        ...


class CachingRunner(Runner, Protocol):
    """A runner with all that it owns, as it is tried before it serves."""

    @property
    def name(self) -> Literal["fast", "compat"]:
        """What the path is called."""
        ...

    @property
    def cache(self) -> SequenceCache:
        """What holds the past of sequences."""
        ...

    def read_windows(self) -> None:
        """Reads the windows of the layers from the model's configuration again."""
        ...
