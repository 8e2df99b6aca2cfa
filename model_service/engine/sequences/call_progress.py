"""How far a call has come with one sequence: its times, its steps, and what it has found out.

`RowCall` adds what the call asks.
"""

import time
from dataclasses import dataclass, field

from model_service.protocol import Failure, Finish
from model_service.protocol.generation import FinishReason, PositionScores


@dataclass(slots=True, eq=False, kw_only=True)
class CallProgress:
    """What has come of a call so far, for one sequence.

    Attributes:
        arrival: when the call began, in seconds of the monotonic clock, like the next two.
        prefill_start: when its first step began; 0 before.
        first_token: when its first token was chosen; 0 before.
        steps: steps that the sequence took part in.
        num_reused: prompt tokens that were copied from another sequence instead of computed.
        given_scores: what was found out so far about the distributions of given tokens.
        given_failure: why the distribution of a given token could not be described.
    """

    arrival: float = field(default_factory=time.monotonic)
    prefill_start: float = 0.0
    first_token: float = 0.0
    steps: int = 0
    num_reused: int = 0
    given_scores: list[PositionScores] = field(default_factory=list)
    given_failure: Failure | None = None

    def begin_step(self, start: float) -> None:
        """Counts a step that begins now."""
        self.prefill_start = self.prefill_start or start
        self.steps += 1

    def note_token(self) -> None:
        """Takes note of the time of the first token."""
        self.first_token = self.first_token or time.monotonic()

    def forget_given_scores(self) -> None:
        """Forgets what was found out about given tokens: it will be found out again."""
        self.given_scores, self.given_failure = [], None

    def finish(self, reason: FinishReason, failure: Failure | None, stop_string: str) -> Finish:
        """Builds the record of the end, with the times since arrival in seconds."""
        now = time.monotonic()
        started = self.prefill_start or now
        first = self.first_token or now
        return Finish(
            reason=reason,
            failure=failure,
            stop_string=stop_string,
            cached_prompt_tokens=self.num_reused,
            steps=self.steps,
            queue_s=started - self.arrival,
            prefill_s=first - started,
            decode_s=now - first,
        )
