"""How far this replica has kept up with its tokenizer service, as callers and metrics see it."""

import hashlib
import time
from dataclasses import dataclass

from model_service.front.metrics.vocabulary_metrics import FollowState
from model_service.front.vocabulary.table import VocabularyTable

NO_ROWS_SHA256 = hashlib.sha256().hexdigest()


@dataclass(slots=True)
class Following:
    """Kept up to date by the follower. Metrics read it from another thread.

    Attributes:
        table: revisions that are served.
        connected: whether the tokenizer service is being followed now.
        known_revision: the newest revision that it is known to have.
        heard_at: when it was last heard of, monotonic clock; None before the first time.
        reserved_rows: rows that can be added without new memory.
        added_rows_sha256: over all rows added since revision 0.
    """

    table: VocabularyTable
    connected: bool = False
    known_revision: int = 0
    heard_at: float | None = None
    reserved_rows: int = 0
    added_rows_sha256: str = NO_ROWS_SHA256

    @property
    def state(self) -> FollowState:
        """What it is doing."""
        if not self.table.followed:
            return "base"
        if self.table.refused:
            return "conflict"
        if not self.connected:
            return "disconnected"
        return "catching_up" if self.lag else "following"

    @property
    def reason(self) -> str:
        """Why nothing is taken; empty while something is."""
        if not self.table.followed or self.connected:
            return ""
        return self.table.refused or self.table.unreachable

    @property
    def lag(self) -> int:
        """Revisions that the tokenizer service is known to have and that are not served here."""
        return max(0, self.known_revision - max(0, len(self.table) - 1))

    @property
    def silence_s(self) -> float | None:
        """Time since the tokenizer service was last heard of, in seconds."""
        return None if self.heard_at is None else time.monotonic() - self.heard_at

    def described(self) -> dict[str, str]:
        """Returns the newest revision and the state as text, as health reports them."""
        newest = self.table.newest.described() if len(self.table) else {}
        return {**newest, "lockstep-vocabulary-follow-state": self.state}

    def heard(self, revision: int) -> None:
        """Notes what the tokenizer service says that its newest revision is."""
        self.heard_at = time.monotonic()
        self.known_revision = revision
