"""What keeps two services from being in lockstep."""

from dataclasses import dataclass
from typing import Literal

from lockstep_client import Lockstep, ModelInfo, VocabularyRef

FOLLOW = "start it with --tokenizer-address and the address of the tokenizer service"


@dataclass(frozen=True, slots=True)
class Drift:
    """Why the services do not serve the same vocabulary.

    Attributes:
        cause: the model service has the vocabulary of another tokenizer, follows no
            tokenizer service, or lacks revisions; or the tokenizer service lacks some.
        revisions: how many revisions one of them lacks; 0 with another tokenizer.
        message: the same in words, with the remedy.
    """

    cause: Literal["another_tokenizer", "follows_nobody", "model_behind", "tokenizer_behind"]
    revisions: int
    message: str


def drift(client: Lockstep, tokenizer: VocabularyRef, model: ModelInfo) -> Drift | None:
    """Compares what both services serve; None where it is the same.

    Args:
        client: of both.
        tokenizer: the vocabulary of the tokenizer service.
        model: what the model service says of itself.
    """
    served, following = model.vocabulary, model.vocabulary_following
    if served == tokenizer:
        return None
    lag = tokenizer.revision - served.revision
    if not _is_on_chain(client, served, tokenizer):
        return Drift(
            "another_tokenizer",
            0,
            f"The model service has the vocabulary of another tokenizer, {served.tokenizer_id}, "
            f"not of {tokenizer.tokenizer_id}: serve the same checkpoint with both, and {FOLLOW}.",
        )
    if following.state == "base":
        return Drift(
            "follows_nobody",
            lag,
            "The model service follows no tokenizer service and gets no new tokens: "
            f"{FOLLOW}. It is behind by {_revisions(lag)}.",
        )
    if lag < 0:
        return Drift(
            "tokenizer_behind",
            -lag,
            f"The tokenizer service is behind by {_revisions(-lag)}: it is a replica that has not "
            "caught up, or its store was replaced by an older one.",
        )
    because = f": {following.reason}" if following.reason else "."
    return Drift("model_behind", lag, f"The model service is behind by {_revisions(lag)}{because}")


def _is_on_chain(client: Lockstep, served: VocabularyRef, tokenizer: VocabularyRef) -> bool:
    """Says whether the tokenizer service has or had what the model service serves."""
    if served.revision > tokenizer.revision:
        return served.tokenizer_id == tokenizer.tokenizer_id
    past = client.vocabulary.revisions()
    return served in (revision.vocabulary for revision in past)


def _revisions(count: int) -> str:
    return "1 revision" if count == 1 else f"{count} revisions"
