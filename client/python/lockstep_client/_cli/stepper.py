"""A sequence that is extended token by token on request: no drawing, no input."""

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from lockstep_client import (
    Batch,
    Lockstep,
    PositionScores,
    ScoreSelection,
    Session,
    VocabularyEntry,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the most probable next tokens.

    Attributes:
        entry: the token.
        logit: its raw logit.
        probability: by softmax of the raw logits.
        processed: by softmax of the scores after processors and warpers; 0 where
            they exclude it.
    """

    entry: VocabularyEntry
    logit: float
    probability: float
    processed: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """What may come next.

    Attributes:
        candidates: the most probable tokens, best first.
        entropy: of the raw distribution, in nats.
        drawn_id: the token that the server draws here.
    """

    candidates: list[Candidate]
    entropy: float
    drawn_id: int


class Stepper:
    """Extends one sequence, over a session that the server keeps.

    Attributes:
        token_ids: prompt and chosen tokens.
        prompt_length: how many of them are the prompt.
        distribution: what may come next.
        config: the configuration that the server uses, every field resolved.
    """

    def __init__(
        self, client: Lockstep, prompt: Batch, *, candidates: int, keywords: dict[str, Any]
    ) -> None:
        """Prepares; `with` opens the session, and closes it whatever happens.

        Args:
            client: both services.
            prompt: a batch of one row.
            candidates: how many tokens a distribution shows.
            keywords: generation keywords.
        """
        self._client = client
        self._vocabulary = prompt.vocabulary
        self._keywords = keywords
        self._selection = ScoreSelection(
            logits=True, scores=True, top_k=candidates, entropy=True, logsumexp=True
        )
        self._entries: dict[int, VocabularyEntry] = {}
        self._session: Session | None = None
        (token_ids,) = prompt.token_ids
        self.token_ids = list(token_ids)
        self.prompt_length = len(token_ids)
        self.distribution = Distribution([], 0.0, 0)
        self.config: dict[str, Any] = {}

    def choose(self, token_ids: list[int]) -> None:
        """Appends tokens."""
        self._step(token_ids)
        self.token_ids += token_ids

    def back(self) -> bool:
        """Takes the last chosen token back. Returns False where there is none."""
        if len(self.token_ids) == self.prompt_length:
            return False
        self._close()
        self.token_ids.pop()
        self._open()
        return True

    def entries(self, token_ids: list[int]) -> list[VocabularyEntry]:
        """Returns entries of the vocabulary, each asked for once."""
        if missing := list(dict.fromkeys(i for i in token_ids if i not in self._entries)):
            found = self._client.tokenizer.convert_tokens(ids=missing).entries
            self._entries.update((entry.id, entry) for entry in found)
        return [self._entries[token_id] for token_id in token_ids]

    def _open(self) -> None:
        """Opens a session at the present tokens, and learns what the server draws there.

        A draw comes with a step, so the last token is stepped where there is one
        to spare; a single token is continued by a call of its own.
        """
        *before, last = self.token_ids
        self._session = session = self._client.model.open_session(
            [before or [last]],
            vocabulary=self._vocabulary,
            selection=self._selection,
            **self._keywords,
        )
        self.config = session.effective_config
        if self.config["do_sample"]:  # reopened, the sequence draws the same
            self._keywords["seed"] = session.seeds[0]
        if before:
            self._step([last])
        else:
            (drawn,) = self._client.model.generate(
                [[last]], vocabulary=self._vocabulary, **self._keywords, max_new_tokens=1
            ).sequences
            self.distribution = self._read(session.rows[0][-1], drawn[0])

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _step(self, token_ids: list[int]) -> None:
        assert self._session is not None
        result = self._session.step([token_ids], sample=True)
        drawn_id = result.sampled_token_ids[0]
        assert drawn_id is not None
        self.distribution = self._read(result.rows[0][-1], drawn_id)

    def _read(self, position: PositionScores, drawn_id: int) -> Distribution:
        entries = self.entries([token.token_id for token in position.tokens])
        return Distribution(
            candidates=[
                Candidate(
                    entry=entry,
                    logit=token.logit or 0.0,
                    probability=_probability(token.logit, position.logits_logsumexp),
                    processed=_probability(token.score, position.scores_logsumexp),
                )
                for entry, token in zip(entries, position.tokens, strict=True)
            ],
            entropy=position.entropy or 0.0,
            drawn_id=drawn_id,
        )

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()


def _probability(value: float | None, logsumexp: float | None) -> float:
    if value is None or logsumexp is None:
        return 0.0
    return math.exp(value - logsumexp)
