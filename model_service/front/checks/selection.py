"""What a request wants to know about each distribution, checked and sized."""

from collections.abc import Sequence
from typing import Literal

from lockstep.v1 import scores_pb2, tensor_pb2

from model_service.protocol.generation import Dtype, ScoreSelection
from wire.tensors import FLOAT_BYTES
from wire.token_ids import check_token_ids
from wire.violations import Violations

DTYPES: dict[int, Dtype] = {
    tensor_pb2.DATA_TYPE_UNSPECIFIED: "float32",
    tensor_pb2.DATA_TYPE_FLOAT32: "float32",
    tensor_pb2.DATA_TYPE_FLOAT16: "float16",
    tensor_pb2.DATA_TYPE_BFLOAT16: "bfloat16",
}

FULL_LOGITS = ScoreSelection(logits=True, amount="full")
"""What a session or `ComputeLogits` returns when the request does not say."""

_POSITION_OVERHEAD_BYTES = 96  # every statistic, tags and lengths
_TOKEN_SCORE_BYTES = 18  # id, two floats, tags and length
_TRACE_ENTRY_BYTES = 24  # two floats, tags and lengths, without the name
_TRACE_SCORE_BYTES = 4

Positions = Literal["last", "new", "all", "list"]
Amount = Literal["none", "full", "top_k", "token_ids"]

Use = Literal["new", "prompt", "given", "scored"]
"""`new` for tokens that are generated, `prompt` for the prompt of a generation, `given` for the
tokens that a session's call brings, `scored` for those of `Score`."""

_POSITIONS: dict[int, Positions] = {
    scores_pb2.SCORE_POSITIONS_LAST: "last",
    scores_pb2.SCORE_POSITIONS_NEW: "new",
    scores_pb2.SCORE_POSITIONS_ALL: "all",
    scores_pb2.SCORE_POSITIONS_LIST: "list",
}
_ALLOWED: dict[Use, tuple[Positions, ...]] = {
    "new": ("new",),
    "prompt": ("all", "list"),
    "given": ("last", "all", "list"),
    "scored": ("all",),
}
"""What each use can report. The first is what unset means."""


def read_selection(
    message: scores_pb2.ScoreSelection,
    field: str,
    violations: Violations,
    *,
    use: Use,
    vocabulary_size: int,
    max_selected_tokens: int,
    given_tokens: int = 0,
) -> ScoreSelection:
    """Reads a selection.

    Args:
        message: the selection.
        field: its path in the request.
        violations: what is wrong is noted here.
        use: which positions make sense.
        vocabulary_size: number of ids of the request's revision.
        max_selected_tokens: largest `top_k` and longest id list.
        given_tokens: positions of the shortest row given, which bound `position_list`.

    Raises:
        TokenIdOutOfRange: a selected id is not in the vocabulary.
    """
    amount: Amount = message.WhichOneof("amount") or "none"
    if amount != "none" and not (message.logits or message.scores):
        violations.add(field, f"{amount} needs logits or scores to be set")
    _check_amount(message, amount, field, violations, vocabulary_size, max_selected_tokens)
    if message.logsumexp and not (message.logits or message.scores):
        violations.add(f"{field}.logsumexp", "needs logits or scores to be set")
    if message.top_k_of_both and not (amount == "top_k" and message.logits and message.scores):
        violations.add(f"{field}.top_k_of_both", "needs top_k, logits and scores to be set")
    if message.dtype not in DTYPES:
        violations.add(f"{field}.dtype", "must be FLOAT32, FLOAT16 or BFLOAT16")
    elif DTYPES[message.dtype] != "float32" and amount != "full":
        violations.add(f"{field}.dtype", "applies to full rows only; set full, or leave it out")
    positions = _read_positions(message.positions, field, violations, use)
    position_list: tuple[int, ...] = ()
    if positions == "list":
        position_list = _read_position_list(message.position_list, field, violations, given_tokens)
    elif message.position_list:
        violations.add(f"{field}.position_list", "needs positions = SCORE_POSITIONS_LIST")
    return ScoreSelection(
        logits=message.logits,
        scores=message.scores,
        amount=amount,
        top_k=message.top_k if amount == "top_k" else 0,
        token_ids=tuple(message.token_ids.ids) if amount == "token_ids" else (),
        dtype=DTYPES.get(message.dtype, "float32"),
        positions=positions,
        position_list=position_list,
        rank=message.rank,
        entropy=message.entropy,
        logsumexp=message.logsumexp,
        processor_trace=message.processor_trace,
        top_k_of_both=message.top_k_of_both,
    )


def asks_for_anything(message: scores_pb2.ScoreSelection) -> bool:
    """Says whether a selection asks for any value at all."""
    return any(
        (
            message.logits,
            message.scores,
            message.rank,
            message.entropy,
            message.logsumexp,
            message.processor_trace,
        )
    )


def position_bytes(
    selection: ScoreSelection, vocabulary_size: int, processors: Sequence[str]
) -> int:
    """Returns the most bytes that the values of one position take in a message.

    Args:
        selection: what is returned.
        vocabulary_size: width of a full row.
        processors: names of the applied processors.
    """
    count = _num_selected(selection)
    total = _POSITION_OVERHEAD_BYTES
    if selection.processor_trace:
        entry = _TRACE_ENTRY_BYTES + count * _TRACE_SCORE_BYTES
        total += sum(len(name) + entry for name in processors)
    kinds = selection.logits + selection.scores
    if selection.amount == "full":
        row = vocabulary_size * FLOAT_BYTES[selection.dtype]
        return total + kinds * (row + 32)
    return total + count * _TOKEN_SCORE_BYTES


def _num_selected(selection: ScoreSelection) -> int:
    """Returns the most ids that `top_k` or `token_ids` report at a position."""
    top_k = selection.top_k * (2 if selection.top_k_of_both else 1)
    return {"top_k": top_k, "token_ids": len(selection.token_ids)}.get(selection.amount, 0)


def num_positions(selection: ScoreSelection, given_tokens: int) -> int:
    """Returns how many positions of `given_tokens` tokens are reported."""
    if selection.positions == "all":
        return given_tokens
    return len(selection.position_list) if selection.positions == "list" else 1


def _check_amount(
    message: scores_pb2.ScoreSelection,
    amount: Amount,
    field: str,
    violations: Violations,
    vocabulary_size: int,
    max_selected_tokens: int,
) -> None:
    if amount == "full" and not message.full:
        violations.add(f"{field}.full", "must be true, or leave the amount unset")
    most = min(vocabulary_size, max_selected_tokens)
    if amount == "top_k" and not 1 <= message.top_k <= most:
        violations.add(f"{field}.top_k", f"must be in [1, {most}]")
    if amount == "token_ids":
        if len(message.token_ids.ids) > vocabulary_size:
            violations.add(f"{field}.token_ids", f"must have 1 to {max_selected_tokens} ids")
            return
        ids = list(message.token_ids.ids)
        check_token_ids(f"{field}.token_ids", [ids], vocabulary_size, one_row=True)
        if not 1 <= len(ids) <= max_selected_tokens:
            violations.add(f"{field}.token_ids", f"must have 1 to {max_selected_tokens} ids")
        if len(set(ids)) != len(ids):
            violations.add(f"{field}.token_ids", "must not repeat an id")


def _read_positions(positions: int, field: str, violations: Violations, use: Use) -> Positions:
    allowed = _ALLOWED[use]
    read = _POSITIONS.get(positions, allowed[0])
    known = positions in _POSITIONS or positions == scores_pb2.SCORE_POSITIONS_UNSPECIFIED
    if not known or read not in allowed:
        names = " or ".join(name.upper() for name in allowed)
        violations.add(f"{field}.positions", f"must be {names} here")
        return allowed[0]
    return read


def _read_position_list(
    listed: Sequence[int], field: str, violations: Violations, given_tokens: int
) -> tuple[int, ...]:
    """Returns the indices in order."""
    if not listed:
        violations.add(f"{field}.position_list", "must have at least one index")
    if len(listed) > given_tokens:
        violations.add(
            f"{field}.position_list",
            f"has {len(listed)} indices; the shortest row has {given_tokens} positions",
        )
        return ()
    if len(set(listed)) != len(listed):
        violations.add(f"{field}.position_list", "must not repeat an index")
    if any(not 0 <= index < given_tokens for index in listed):
        violations.add(
            f"{field}.position_list",
            f"must be in [0, {given_tokens}), the positions of the shortest row",
        )
    return tuple(sorted(listed))
