"""What holds the past of sequences, whatever a model keeps of it."""

from typing import Protocol

from model_service.protocol import EngineSettings

# Sequences that the self-test holds at once.
MIN_SLOTS = 3


class SequenceCache(Protocol):
    """Numbered places, one per sequence, each holding what a model keeps of some tokens.

    Which tokens of a place count is said by its sequence alone: `num_cached` of them. A sequence
    is cut by lowering that number, and its place keeps what it held until the next step writes
    over it.

    Attributes:
        num_slots: how many there are.
        cuts_freely: whether a cut sequence goes on at no cost. If not, its kept tokens pass
            through the model again at its next step.
    """

    num_slots: int
    cuts_freely: bool

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a token takes, at least 1; what admission counts."""
        ...

    @property
    def num_free_slots(self) -> int:
        """Places that no sequence holds."""
        ...

    def allocate(self) -> int:
        """Takes the lowest free place."""
        ...

    def free(self, slot: int, length: int) -> None:
        """Gives a place back and forgets its tokens, of which `length` were ever written."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Makes a place hold the first `length` tokens of another."""
        ...


def num_slots(settings: EngineSettings) -> int:
    """Returns the places that are needed: one for every sequence there may be at once."""
    return max(settings.max_running_sequences + settings.max_session_rows, MIN_SLOTS)
