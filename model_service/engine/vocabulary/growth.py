"""Revisions on their way into the vocabulary: a slice of work between two steps.

What is quick is done at once. What is not, above all the copy of an embedding
whose reserve is used up, goes on between the next steps, so that none of them
waits for long.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from model_service.engine.vocabulary.vocabulary import Vocabulary
from model_service.protocol import Event, Failure, GrowVocabulary, Rejected, VocabularyGrown

# Most that is worked between two steps, but for the piece of work that is under way then.
SLICE_S = 0.004

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """A revision that is not there yet."""

    command: GrowVocabulary
    work: Iterator[None]
    longest_s: float = 0.0


class Growth:
    """Grows a vocabulary, revision by revision, and answers for each."""

    def __init__(self, vocabulary: Vocabulary, emit: Callable[[Event], None]) -> None:
        self._vocabulary = vocabulary
        self._emit = emit
        self._pending: deque[_Pending] = deque()
        self._looks_ahead = False  # for room, after a revision
        self._ahead_s = 0.0  # longest stretch of that
        self._spent_s = 0.0  # since the last step
        self._told_s = 0.0  # of that, what revisions that are answered have been told

    @property
    def is_busy(self) -> bool:
        """Whether `advance` has anything to do."""
        return bool(self._pending) or (self._looks_ahead and self._vocabulary.is_short)

    def request(self, command: GrowVocabulary) -> None:
        """Takes a revision, and begins unless others have taken the time that there is."""
        work = self._vocabulary.growing(command.revision, command.rows)
        self._pending.append(_Pending(command, work))
        self._work_on()

    def advance(self) -> None:
        """Does what else there is time for before the next step. Called once per step."""
        self._work_on()
        untold_s = self._spent_s - self._told_s
        if self._pending:
            self._pending[0].longest_s = max(self._pending[0].longest_s, untold_s)
        else:
            self._ahead_s = max(self._ahead_s, untold_s)
        self._spent_s = self._told_s = 0.0

    def _work_on(self) -> None:
        while self.is_busy and self._spent_s < SLICE_S:
            start = time.monotonic() - self._spent_s
            if self._pending:
                self._work(self._pending[0], start)
            else:
                self._look_ahead()
            self._spent_s = time.monotonic() - start

    def _work(self, pending: _Pending, start: float) -> None:
        """Does one piece of work for a revision, and answers when it was the last.

        Args:
            pending: the revision.
            start: when the work since the last step began, as far as it was without a break.
        """
        command = pending.command
        try:
            next(pending.work)
            return
        except StopIteration:
            self._looks_ahead = True
        except ValueError as error:  # what the tokenizer service could not know
            self._reject(command, "InvalidField", field="tokens", description=str(error))
            return
        except (RuntimeError, MemoryError):
            logger.exception("Revision %d could not be applied", command.revision)
            self._reject(command, "InternalError", request_id=f"revision-{command.revision}")
            return
        self._pending.popleft()
        spent_s = time.monotonic() - start
        # What revisions before it took of the same pause is counted with them.
        longest_s = max(pending.longest_s, self._ahead_s, spent_s - self._told_s)
        self._ahead_s = 0.0
        self._told_s = spent_s
        vocabulary = self._vocabulary
        self._emit(
            VocabularyGrown(
                request_id=command.request_id,
                revision=vocabulary.revision,
                size=vocabulary.size,
                reserved_rows=vocabulary.num_reserved,
                added_rows_sha256=vocabulary.added_rows_sha256,
                pause_s=longest_s,
            )
        )

    def _reject(self, command: GrowVocabulary, error: str, **arguments: object) -> None:
        self._pending.popleft()
        self._emit(Rejected(command.request_id, Failure(error, arguments)))

    def _look_ahead(self) -> None:
        """Does one piece of work on room for revisions that are yet to come."""
        try:
            self._vocabulary.make_room()
        except (RuntimeError, MemoryError):
            logger.exception("Memory is not sufficient for more reserved rows yet")
            self._looks_ahead = False  # until a revision is here
