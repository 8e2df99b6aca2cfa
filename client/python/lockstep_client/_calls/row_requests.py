"""Requests with any number of rows, cut into requests that a service takes. Pure: no I/O."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message
from lockstep.v1 import generation_pb2 as generation_pb
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1 import tokens_pb2 as tokens_pb

from lockstep_client._results.model_info import Capabilities
from lockstep_client._results.tokenizer import TokenizerInfo
from lockstep_client._values import fields, tensors
from lockstep_client.exceptions import (
    FieldViolation,
    KVCacheExceeded,
    LockstepError,
    MessageTooLarge,
    ResponseTooLarge,
)

Request = TypeVar("Request", bound=Message)

_TEXT_CALLS: Final = 4
_FIELDS: Final = ("items", "batch", "prompt", "continuations", "seeds")
"""Fields with an entry per row, whichever request has them; the first has all rows."""

_PART_TOKENS: Final = 4096
_FLYING_TOKENS: Final = 4 * _PART_TOKENS
"""Tokens of a request, and on their way at a time, where the model computes all of them at once."""

_HEADROOM_BYTES: Final = 1024
_ENTRY_BYTES: Final = 8

_GOLDEN_GAMMA: Final = 0x9E3779B97F4A7C15

# How errors name a row: `row 3`, `texts[3]`, `prompts[3]`.
_ROW: Final = re.compile(r"(\b[Rr]ow |\b(?:texts|rows|prompts|continuations|seeds)\[)(\d+)")

_TOO_LARGE: Final = (MessageTooLarge, ResponseTooLarge, KVCacheExceeded)


@dataclass(frozen=True, slots=True)
class RowLimits:
    """How many rows go with a request, and how many requests run at a time.

    Attributes:
        whole: rows up to which a call is not cut.
        part: rows of a request of a call that is.
        request_bytes: largest request.
        at_once: rows on their way at a time.
    """

    whole: int
    part: int
    request_bytes: int
    at_once: int

    @property
    def num_requests(self) -> int:
        """Requests at a time."""
        return max(self.at_once // self.part, 1)

    @classmethod
    def of_texts(cls, info: TokenizerInfo) -> "RowLimits":
        """Returns the limits of a tokenizer service: a few calls keep its threads busy."""
        return cls(
            info.max_items, info.max_items, info.max_message_bytes, _TEXT_CALLS * info.max_items
        )

    @classmethod
    def of_sequences(cls, capabilities: Capabilities, sequences_per_row: int = 1) -> "RowLimits":
        """Returns the limits of a model service.

        One and a half times as many sequences as run in a step are on their way: the next ones
        wait at the service when places become free, and other callers find places too. A part
        is a quarter of a step, so that the end of its longest sequence holds up few.
        """
        limits = capabilities.limits
        running = limits["max_running_sequences"]
        flying = min(running + running // 2, admitted(capabilities))
        part = max(min(running // 4, limits["max_sequences_per_call"]) // sequences_per_row, 1)
        return cls(
            whole=max(limits["max_sequences_per_call"] // sequences_per_row, 1),
            part=part,
            request_bytes=limits["max_request_bytes"],
            at_once=max(flying // sequences_per_row, 1),
        )

    def of_length(self, num_tokens: int) -> "RowLimits":
        """Returns the limits for rows of so many tokens that are computed as a whole.

        Long rows go with fewer in a request, and fewer at a time, so that each request ends
        within its timeout.
        """
        rows = max(_PART_TOKENS // max(num_tokens, 1), 1)
        part = min(self.part, rows)
        flying = max(_FLYING_TOKENS // max(num_tokens, 1), part)
        return RowLimits(min(self.whole, rows), part, self.request_bytes, min(self.at_once, flying))


def admitted(capabilities: Capabilities) -> int:
    """Returns how many sequences a model service runs and lets wait."""
    limits = capabilities.limits
    return limits["max_running_sequences"] + limits["max_waiting_sequences"]


class RowRequest(Generic[Request]):
    """A request whose rows can be sent in several ones.

    `len(request)` is the number of rows.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._fields = [
            name
            for name in _FIELDS
            if name in request.DESCRIPTOR.fields_by_name and _has(request, name)
        ]
        self._frame = type(request)()
        self._frame.CopyFrom(request)
        for name in self._fields:
            self._frame.ClearField(name)

    def __len__(self) -> int:
        return _count(getattr(self._request, self._fields[0])) if self._fields else 0

    def cut(self, rows: range) -> Request:
        """Returns the request with these rows only."""
        if len(rows) == len(self):
            return self._request
        part = type(self._request)()
        part.CopyFrom(self._frame)
        for name in self._fields:
            _copy_rows(getattr(self._request, name), getattr(part, name), rows)
        if isinstance(part, model_pb.GenerateRequest):
            _give_seeds(part, rows)
        return part

    def parts(self, limits: RowLimits) -> list[range]:
        """Returns the rows of each request that the call is made of, in order.

        One that belongs together is not cut: where a session is to hold its rows, and where
        fields have different numbers of rows, which the service refuses.
        """
        room = limits.request_bytes - self._frame.ByteSize() - _HEADROOM_BYTES
        sizes = list(self._sizes())
        small = len(self) <= limits.whole and sum(sizes) <= room
        if small or not self._is_divisible():
            return [range(len(self))]
        parts, first, used = [], 0, 0
        for row, size in enumerate(sizes):
            if row > first and (row - first == limits.part or used + size > room):
                parts.append(range(first, row))
                first, used = row, 0
            used += size
        return [*parts, range(first, len(self))]

    def _is_divisible(self) -> bool:
        request = self._request
        if isinstance(request, model_pb.GenerateRequest) and request.HasField("keep_session"):
            return False
        return len({_count(getattr(self._request, name)) for name in self._fields}) == 1

    def _sizes(self) -> Iterator[int]:
        """Yields the bytes of each row, at least."""
        columns = [list(_sizes(getattr(self._request, name))) for name in self._fields]
        return map(sum, zip(*columns, strict=False))


def row_seed(seed: int, row: int) -> int:
    """Returns the seed of a row's first sequence, as `GenerationConfig.seed` has it."""
    if row == 0:
        return seed
    return _mix(_mix(seed + _GOLDEN_GAMMA * (row + 1)) + _GOLDEN_GAMMA) & (2**63 - 1)


def num_sequences(request: model_pb.GenerateRequest | model_pb.ScoreRequest) -> int:
    """Returns how many sequences of the service a request takes."""
    per_row = 1
    if isinstance(request, model_pb.GenerateRequest):
        per_row = sequences_per_row(request.generation_config)
    return _count(request.prompt) * per_row


def sequences_per_row(config: generation_pb.GenerationConfig) -> int:
    """Returns how many sequences of the service a row of a generation takes."""
    guided = config.HasField("guidance_scale") and config.guidance_scale != 1
    return max(config.num_beams, max(config.num_return_sequences, 1) * (2 if guided else 1))


def may_pass_in_halves(error: LockstepError, *, returns: bool) -> bool:
    """Says whether fewer rows at a time can help.

    Args:
        error: how a request with several rows failed.
        returns: whether errors are returned, so that the other rows count.
    """
    if isinstance(error, _TOO_LARGE):
        return True
    names = (str(error), *(violation.field for violation in error.violations))
    return returns and any(map(_ROW.search, names))


def locate(error: LockstepError, rows: Sequence[int]) -> None:
    """Lets an error of a request name the rows of the call that the request is a part of.

    Args:
        error: the error.
        rows: the row of the call that each row of the request is.
    """

    def numbered(number: str) -> int:
        row = int(number)
        return rows[row] if row < len(rows) else row

    def shift(text: str) -> str:
        return _ROW.sub(lambda found: f"{found[1]}{numbered(found[2])}", text)

    error.args = (shift(str(error)), *error.args[1:])
    error.violations = tuple(
        FieldViolation(shift(violation.field), shift(violation.description))
        for violation in error.violations
    )
    if "row" in error.metadata:
        error.metadata["row"] = str(numbered(error.metadata["row"]))


def _give_seeds(part: model_pb.GenerateRequest, rows: range) -> None:
    """Gives rows the seeds that the service would derive for them, had it all of the call."""
    config = part.generation_config
    if config.HasField("seed"):
        part.seeds.extend(row_seed(config.seed, row) for row in rows)
        config.ClearField("seed")


def _mix(value: int) -> int:
    """Applies the finalizer of SplitMix64, as the service does to derive seeds."""
    value &= 2**64 - 1
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
    return value ^ (value >> 31)


def _has(request: Message, name: str) -> bool:
    field: Any = request.DESCRIPTOR.fields_by_name[name]
    if fields.is_repeated(field):
        return bool(getattr(request, name))
    return bool(request.HasField(name))


def _lists(rows: Any) -> Any:
    """Returns the repeated field with an entry per row; None for a rectangle."""
    if isinstance(rows, tokens_pb.PromptBatch):
        return None if rows.HasField("padded_batch") else rows.token_batch.sequences
    return rows.sequences if isinstance(rows, tokens_pb.TokenBatch) else rows


def _count(rows: Any) -> int:
    entries = _lists(rows)
    if entries is None:
        return int(next(iter(rows.padded_batch.input_ids.shape), 0))
    return len(entries)


def _sizes(rows: Any) -> Iterator[int]:
    entries = _lists(rows)
    if entries is None:
        count = max(_count(rows), 1)
        yield from [rows.ByteSize() // count + _ENTRY_BYTES] * count
        return
    for entry in entries:
        yield _ENTRY_BYTES if isinstance(entry, int) else entry.ByteSize() + _ENTRY_BYTES


def _copy_rows(source: Any, target: Any, rows: range) -> None:
    entries = _lists(source)
    if entries is not None:
        _lists(target).extend(entries[rows.start : rows.stop])
        return
    rectangle = target.padded_batch
    rectangle.CopyFrom(source.padded_batch)
    for name in ("input_ids", "attention_mask", "position_ids"):
        if source.padded_batch.HasField(name):
            values = tensors.from_message(getattr(source.padded_batch, name))
            getattr(rectangle, name).CopyFrom(tensors.to_message(values[rows.start : rows.stop]))
