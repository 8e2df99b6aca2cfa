"""How tokens are chosen and what is returned about them: own types, no wire, no tensors.

Both sides of the engine's socket read these. A `GenerationConfig` here is fully
resolved and checked: `convert.py` merges a request over the model's defaults
before anything is sent to the engine.
"""

from typing import Literal

import msgspec

Dtype = Literal["float32", "float16", "bfloat16"]

FinishReason = Literal[
    "eos_token",
    "stop_token",
    "max_new_tokens",
    "context_length",
    "cancelled",
    "error",
]
"""Why a sequence ended. The names are those of the schema, without prefix, in lower case."""


class GenerationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Resolved parameters of a generation. Names and meanings are Hugging Face's.

    Every value is in the range that the schema states; the engine does not
    check again.
    """

    max_new_tokens: int
    """Upper bound on generated tokens, >= 1. Sessions ignore it."""

    do_sample: bool = False
    """Whether tokens are drawn; False takes the most probable one."""

    temperature: float = 1.0
    """Divisor of the logits, > 0."""

    top_k: int = 50
    """Keeps the k highest-scored tokens; 0 turns it off."""

    top_p: float = 1.0
    """Keeps the smallest set that reaches this mass; 1 turns it off."""

    min_tokens_to_keep: int = 1
    """Fewest tokens that a warper keeps, >= 1."""

    repetition_penalty: float = 1.0
    """Penalizes tokens that the sequence already has; 1 turns it off."""

    min_new_tokens: int = 0
    """Tokens generated before an end-of-sequence id is possible."""

    eos_token_ids: tuple[int, ...] = ()
    """Ids that end the sequence with reason `eos_token`."""

    stop_token_ids: tuple[int, ...] = ()
    """Further ids that end the sequence, with reason `stop_token`."""


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


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """One id of a distribution; a value that was not asked for is None."""

    token_id: int
    logit: float | None
    score: float | None


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


class SharedRow(msgspec.Struct, frozen=True, tag="shared"):
    """A row that lies in the shared ring, see `channel.py`."""

    start: int
    """Number of bytes written to the ring before it, ever."""

    size: int
    """Length in bytes."""


Row = bytes | SharedRow
