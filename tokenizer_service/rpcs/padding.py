"""`Pad`, and padding wherever ids are returned: how it is asked for, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2

from rpc.errors import InvalidField
from tokenizer_service.rpcs.service import RequestLimits, Service
from tokenizer_service.text import padding
from tokenizer_service.text.padding import Side
from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.text.work_cost import decoding_cost
from tokenizer_service.worker_pool import Pieces
from wire import tensors
from wire.prompts import Bounds, read_ragged
from wire.token_ids import check_token_ids
from wire.violations import Violations
from wire.vocabulary import vocabulary_ref

MAX_ROW_LENGTH = 2**20
MAX_PAD_MULTIPLE = 4096

_SIDES: dict[int, Side] = {
    tokens_pb2.PADDING_SIDE_LEFT: "left",
    tokens_pb2.PADDING_SIDE_RIGHT: "right",
}
_STRATEGIES: dict[int, Literal["none", "longest", "max_length"]] = {
    pb.PADDING_STRATEGY_UNSPECIFIED: "none",
    pb.PADDING_STRATEGY_NONE: "none",
    pb.PADDING_STRATEGY_LONGEST: "longest",
    pb.PADDING_STRATEGY_MAX_LENGTH: "max_length",
}


@dataclass(frozen=True, slots=True)
class Padding:
    """How a batch is padded.

    Attributes:
        field: path of the options in the request.
        side: where.
        max_length: the length, None for the length of the longest row.
        pad_to_multiple_of: the length is rounded up to a multiple of it.
        pad_token_id: the padding id, None for the tokenizer's own.
    """

    field: str
    side: Side = "left"
    max_length: int | None = None
    pad_to_multiple_of: int = 1
    pad_token_id: int | None = None


async def pad(request: pb.PadRequest, service: Service) -> pb.PadResponse:
    """Pads rows that the caller has.

    Raises:
        InvalidField: an option is out of its range, or the rows do not fit.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    tokenizer = service.vocabulary.current
    violations = Violations()
    options = read_padding("padding", request.padding, tokenizer.size, violations)
    if request.padding.strategy == pb.PADDING_STRATEGY_NONE:
        violations.add("padding.strategy", "must be a way to pad")

    def work() -> Pieces[pb.PadResponse]:
        bounds = Bounds(service.limits.max_items)
        batch = request.token_batch
        rows = read_ragged(batch, "token_batch", violations, bounds, allow_empty_rows=True)
        violations.check()
        check_token_ids("token_batch", rows, tokenizer.size)
        yield
        return pb.PadResponse(
            padded_batch=padded_batch(
                rows, options or Padding("padding"), tokenizer, service.limits
            ),
            vocabulary=vocabulary_ref(tokenizer.reference),
        )

    cost = decoding_cost(request.ByteSize(), service.max_response_bytes)
    return await service.pool.run_pieces(work(), cost)


def read_side(field: str, value: int, default: Side, violations: Violations) -> Side:
    """Reads a side; one that this version does not know is noted."""
    return violations.known(field, value, {tokens_pb2.PADDING_SIDE_UNSPECIFIED: default} | _SIDES)


def read_padding(
    field: str, message: pb.PaddingOptions, size: int, violations: Violations
) -> Padding | None:
    """Reads padding options. None means no padding.

    Args:
        field: their path in the request.
        message: the options.
        size: number of ids.
        violations: what is out of its range is noted here.
    """
    strategy = violations.known(f"{field}.strategy", message.strategy, _STRATEGIES)
    multiple = message.pad_to_multiple_of if message.HasField("pad_to_multiple_of") else 1
    max_length = message.max_length if message.HasField("max_length") else None
    pad_token_id = message.pad_token_id if message.HasField("pad_token_id") else None
    violations.in_range(f"{field}.pad_to_multiple_of", multiple, 1, MAX_PAD_MULTIPLE)
    if max_length is not None:
        violations.in_range(f"{field}.max_length", max_length, 1, MAX_ROW_LENGTH)
    elif strategy == "max_length":
        violations.add(f"{field}.max_length", "must be set to pad to it")
    if pad_token_id is not None:
        violations.in_range(f"{field}.pad_token_id", pad_token_id, 0, size - 1)
    side = read_side(f"{field}.side", message.side, "left", violations)
    if strategy == "none":
        return None
    length = max_length if strategy == "max_length" else None
    return Padding(field, side, length, multiple, pad_token_id)


def padded_batch(
    rows: Sequence[Sequence[int]], options: Padding, tokenizer: Tokenizer, limits: RequestLimits
) -> tokens_pb2.PaddedBatch:
    """Pads rows and writes the rectangle.

    Raises:
        InvalidField: a row is longer than the length asked for, or the batch too large.
    """
    lengths = [len(row) for row in rows]
    if options.max_length is not None and max(lengths, default=0) > options.max_length:
        raise InvalidField(
            f"{options.field}.max_length",
            "is shorter than a row; ask for truncation to cut rows",
        )
    length = padding.padded_length(
        lengths, max_length=options.max_length, pad_to_multiple_of=options.pad_to_multiple_of
    )
    if len(rows) * length > limits.max_padded_cells:
        raise InvalidField(
            options.field,
            f"gives {len(rows) * length} cells, more than the limit of {limits.max_padded_cells}; "
            "send fewer rows, rows of similar length, or do not pad",
        )
    pad_token_id = options.pad_token_id
    if pad_token_id is None:
        pad_token_id = tokenizer.pad_token_id
    padded = padding.pad(rows, length, side=options.side, pad_token_id=pad_token_id)
    return tokens_pb2.PaddedBatch(
        input_ids=tensors.matrix(padded.input_ids),
        attention_mask=tensors.matrix(padded.attention_mask),
        position_ids=tensors.matrix(padded.position_ids),
        padding_side=f"PADDING_SIDE_{padded.side.upper()}",
        pad_token_id=padded.pad_token_id,
        lengths=padded.lengths,
    )
