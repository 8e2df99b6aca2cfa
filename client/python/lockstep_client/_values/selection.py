"""What comes back about the distribution at each position, and in which form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lockstep.v1 import scores_pb2 as scores_pb
from lockstep.v1 import tensor_pb2 as tensor_pb

from lockstep_client._values import token_ids
from lockstep_client._values.choices import choose
from lockstep_client._values.messages import build, check
from lockstep_client.exceptions import WrongType, WrongValue

Dtype = Literal["float32", "float16", "bfloat16"]
Positions = Literal["last", "new", "all"]

_DTYPES: dict[Dtype, tensor_pb.DataType] = {
    "float32": tensor_pb.DATA_TYPE_FLOAT32,
    "float16": tensor_pb.DATA_TYPE_FLOAT16,
    "bfloat16": tensor_pb.DATA_TYPE_BFLOAT16,
}
_POSITIONS: dict[Positions, scores_pb.ScorePositions] = {
    "last": scores_pb.SCORE_POSITIONS_LAST,
    "new": scores_pb.SCORE_POSITIONS_NEW,
    "all": scores_pb.SCORE_POSITIONS_ALL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSelection:
    """Selects what is returned about each distribution.

    At most one of `full`, `top_k` and `token_ids` is given. Logits are the
    model's raw output; scores are logits after processors and warpers.

    Attributes:
        logits: whether raw logits are returned.
        scores: whether processed scores are returned.
        full: whether whole rows are.
        top_k: number of the most probable ids to return.
        token_ids: ids to return.
        dtype: element type of full rows on the wire. bfloat16 arrives as float32.
        positions: which positions of those that the call passes; None means the
            call's own default.
        position_list: indices instead of `positions`, from 0.
        rank: whether the rank of the chosen token is returned.
        entropy: whether the entropy is returned, in nats.
        logsumexp: whether log-sum-exp is returned.
        processor_trace: whether the chosen token's score after each processor is.
        top_k_of_both: whether `top_k` tokens by scores are returned in addition to those by
            logits.
    """

    logits: bool = False
    scores: bool = False
    full: bool = False
    top_k: int | None = None
    token_ids: Sequence[int] | None = None
    dtype: Dtype = "float32"
    positions: Positions | None = None
    position_list: Sequence[int] = ()
    rank: bool = False
    entropy: bool = False
    logsumexp: bool = False
    processor_trace: bool = False
    top_k_of_both: bool = False

    def __post_init__(self) -> None:
        amounts = (self.full, self.top_k is not None, self.token_ids is not None)
        if sum(amounts) > 1:
            raise WrongValue("Give at most one of full, top_k and token_ids.")
        choose("dtype", self.dtype, _DTYPES)
        if self.positions is not None:
            choose("positions", self.positions, _POSITIONS)

    def to_message(self) -> scores_pb.ScoreSelection:
        """Builds the wire form."""
        message = build(
            scores_pb.ScoreSelection,
            logits=self.logits,
            scores=self.scores,
            dtype=_DTYPES[self.dtype],
            positions=self._positions(),
            position_list=self.position_list,
            rank=self.rank,
            entropy=self.entropy,
            logsumexp=self.logsumexp,
            processor_trace=self.processor_trace,
            top_k_of_both=self.top_k_of_both,
        )
        if self.full:
            message.full = True
        elif self.top_k is not None:
            check(scores_pb.ScoreSelection, "top_k", self.top_k)
            message.top_k = self.top_k
        elif self.token_ids is not None:
            message.token_ids.ids.extend(token_ids.row(self.token_ids))
            message.token_ids.SetInParent()  # an empty list is not the same as none
        return message

    def _positions(self) -> scores_pb.ScorePositions:
        if self.position_list:
            return scores_pb.SCORE_POSITIONS_LIST
        if self.positions is None:
            return scores_pb.SCORE_POSITIONS_UNSPECIFIED
        return _POSITIONS[self.positions]


def of(options: Mapping[str, Any], *, logits: bool = False) -> ScoreSelection | None:
    """Returns what keywords select: a selection, or the words that stand for full rows.

    Args:
        options: keywords.
        logits: whether rows of logits are what the call returns unless told otherwise.

    Raises:
        WrongValue: both are given.
    """
    words = ("output_logits", "output_scores", "processor_trace")
    given = {name: options[name] for name in words if options.get(name) is not None}
    selection: ScoreSelection | None = options.get("selection")
    if selection is not None and any(given.values()):
        raise WrongValue(f"Give selection, or {', '.join(given)}, not both.")
    if selection is not None or not given or (not logits and not any(given.values())):
        return selection
    rows = bool(given.get("output_logits", logits)), bool(given.get("output_scores", False))
    trace = bool(given.get("processor_trace", False))
    return ScoreSelection(logits=rows[0], scores=rows[1], full=any(rows), processor_trace=trace)


def message(selection: ScoreSelection | None) -> scores_pb.ScoreSelection | None:
    """Builds the wire form of a selection; None stays unset.

    Raises:
        InvalidArgument: it has another form.
    """
    if not isinstance(selection, ScoreSelection | None):
        raise WrongType(
            f"selection is a ScoreSelection, for example ScoreSelection(logits=True, top_k=5), "
            f"not {selection!r}."
        )
    return None if selection is None else selection.to_message()
