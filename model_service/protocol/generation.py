"""What is returned about the tokens of a generation: own types, no wire, no tensors."""

from typing import Literal

import msgspec

Dtype = Literal["float32", "float16", "bfloat16"]

FinishReason = Literal[
    "eos_token",
    "stop_token",
    "stop_string",
    "stop_sequence",
    "max_new_tokens",
    "context_length",
    "time_limit",
    "cancelled",
    "error",
]
"""Why a sequence ended. The names are the schema's, without prefix, in lower case."""


class ScoreSelection(msgspec.Struct, frozen=True):
    """What is returned about the distribution at each position."""

    logits: bool = False
    """Whether raw logits are returned."""

    scores: bool = False
    """Whether scores (after processors and warpers) are returned."""

    amount: Literal["none", "full", "top_k", "token_ids"] = "none"
    """How much of each row is returned."""

    top_k: int = 0
    """Number of ids for `top_k`."""

    token_ids: tuple[int, ...] = ()
    """Ids for `token_ids`."""

    dtype: Dtype = "float32"
    """Element type of full rows."""

    positions: Literal["last", "new", "all", "list"] = "last"
    """Which positions are reported."""

    position_list: tuple[int, ...] = ()
    """Indices for `list`: 0 is the distribution after the first token given."""

    rank: bool = False
    """Whether the rank of the chosen token is returned."""

    entropy: bool = False
    """Whether the entropy of softmax(logits) is returned."""

    logsumexp: bool = False
    """Whether log-sum-exp of what was asked for is returned."""

    logprob: bool = False
    """Whether log softmax(logits)[token_id] is returned even when nothing else about logits is."""

    processor_trace: bool = False
    """Whether scores of the chosen token and of the ids selected are, after each processor."""

    top_k_of_both: bool = False
    """Whether `top_k` selects the best ids by scores in addition to those by logits."""


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """One id of a distribution; a value that was not asked for is None."""

    token_id: int
    logit: float | None
    score: float | None


class ProcessorTrace(msgspec.Struct, frozen=True, array_like=True):
    """Scores after one processor: of the chosen token, if any, and of the ids selected."""

    processor: str
    score: float | None
    logsumexp: float | None = None
    token_scores: list[float] = []


class PositionScores(msgspec.Struct, frozen=True):
    """What was asked for about one position. `Row` values are `[V]` little-endian.

    The distribution at `position` is the one from which the token at that index
    of the sequence was (or will be) chosen.
    """

    position: int
    """Index in the sequence of the token that the distribution predicts."""

    token_id: int | None = None
    """The token at `position`, when there is one."""

    logits: "Row | None" = None
    """Full row of raw logits."""

    scores: "Row | None" = None
    """Full row of scores."""

    dtype: Dtype = "float32"
    """Element type of both rows."""

    tokens: list[TokenScore] = []
    """The ids selected."""

    logits_logsumexp: float | None = None
    scores_logsumexp: float | None = None
    entropy: float | None = None
    rank: int | None = None
    logits_logprob: float | None = None
    """log softmax(logits)[token_id]"""

    scores_logprob: float | None = None
    """log softmax(scores)[token_id]"""

    processor_trace: list[ProcessorTrace] = []


class SharedRow(msgspec.Struct, frozen=True, tag="shared"):
    """A row that lies in the shared ring, see `channel.py`."""

    start: int
    """Number of bytes written to the ring before it, ever."""

    size: int
    """Length in bytes."""


Row = bytes | SharedRow
