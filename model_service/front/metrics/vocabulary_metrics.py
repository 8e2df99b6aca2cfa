"""The vocabulary: what is served, and how the tokenizer service is followed."""

import math
from functools import partial
from typing import Literal, Protocol, get_args

from prometheus_client import Gauge

from model_service.front.metrics.families import PREFIX, Families

FollowState = Literal["base", "following", "catching_up", "disconnected", "conflict"]
"""The names are the schema's, without prefix, in lower case."""


class Following(Protocol):
    """How far the vocabulary has kept up, read from the thread that serves metrics."""

    @property
    def state(self) -> FollowState:
        """What the follower is doing."""

    @property
    def connected(self) -> bool:
        """Whether the tokenizer service is being followed now."""

    @property
    def lag(self) -> int:
        """Revisions that the tokenizer service is known to have and that are not served here."""

    @property
    def silence_s(self) -> float | None:
        """Time since the tokenizer service was last heard of, in seconds; None before that."""


class VocabularyMetrics:
    """Recorded by the follower."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._revision = families.gauge(
            "vocabulary_revision", "Newest vocabulary revision applied."
        )
        self._size = families.gauge("vocabulary_size", "Ids of the newest revision.")
        self._state = families.gauges(
            "vocabulary_follow_state",
            "1 for the state of following the tokenizer service.",
            state=get_args(FollowState),
        )
        self._connected = self._of_a_follower(
            "vocabulary_follower_connected", "1 while the tokenizer service is followed."
        )
        self._lag = self._of_a_follower(
            "vocabulary_lag_revisions",
            "Known revisions of the tokenizer service that are not served here yet.",
        )
        self._silence = self._of_a_follower(
            "vocabulary_follower_silence_seconds",
            "Time since the last message of the tokenizer service.",
        )
        self._growth_pause = families.histogram(
            "vocabulary_growth_pause_seconds",
            "Time without a step while rows were added; revisions share a pause.",
        )

    def served(self, revision: int, size: int) -> None:
        """Notes the newest revision."""
        self._revision.set(revision)
        self._size.set(size)

    def grown(self, pause_s: float) -> None:
        """Records a growth."""
        self._growth_pause.observe(pause_s)

    def following(self, following: Following) -> None:
        """Shows how far the vocabulary has kept up, at the moment of each scrape.

        What follows nobody is neither disconnected nor behind, and has no such series.
        """
        for state in get_args(FollowState):
            self._state.of(state).set_function(partial(_is_in, following, state))
        if following.state == "base":
            return
        model = self._families.model_name
        self._connected.labels(model).set_function(lambda: float(following.connected))
        self._lag.labels(model).set_function(lambda: float(following.lag))
        self._silence.labels(model).set_function(
            lambda: math.nan if following.silence_s is None else following.silence_s
        )

    def _of_a_follower(self, name: str, text: str) -> Gauge:
        """Declares a gauge without its series, which not every service has."""
        return Gauge(PREFIX + name, text, ["model_name"], registry=self._families.registry)


def _is_in(following: Following, state: FollowState) -> float:
    return float(following.state == state)
