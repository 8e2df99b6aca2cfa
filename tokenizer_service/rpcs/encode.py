"""`Encode`, `EncodeStream` and `CountTokens`: text becomes ids."""

from collections.abc import AsyncIterator, Iterator, MutableSequence, Sequence
from contextlib import aclosing
from typing import TypeVar

from lockstep.v1 import tokenizer_service_pb2 as pb

from rpc.errors import ServiceError
from rpc.handlers import Serialized
from rpc.slices import slices
from rpc.status import item_error
from rpc.streams import until_drained
from tokenizer_service.rpcs.large_response import LargeResponse
from tokenizer_service.rpcs.padding import MAX_ROW_LENGTH, padded_batch, read_padding, read_side
from tokenizer_service.rpcs.service import RequestLimits, Service
from tokenizer_service.text import offsets
from tokenizer_service.text.encoding import EncodedRow, EncodeOptions, Text, Truncation, groups
from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.text.work_cost import encoding_cost
from tokenizer_service.worker_pool import Pieces
from wire.violations import Violations
from wire.vocabulary import vocabulary_ref

_T = TypeVar("_T")

_UNITS: dict[int, offsets.Unit | None] = {
    pb.OFFSET_UNIT_UNSPECIFIED: None,
    pb.OFFSET_UNIT_BYTES: "bytes",
    pb.OFFSET_UNIT_CODE_POINTS: "code_points",
    pb.OFFSET_UNIT_UTF16: "utf16",
}


async def encode(request: pb.EncodeRequest, service: Service) -> Serialized:
    """Encodes texts, with all that is asked for about each.

    Raises:
        InvalidField: one or more fields are wrong, or the rows cannot be padded so.
        ResponseTooLarge: the rows are too many or too long.
        VocabularyBehind: this replica does not have the revision asked for.
    """
    min_revision = request.min_revision if request.HasField("min_revision") else None
    await service.vocabulary.reach(min_revision)
    tokenizer = service.vocabulary.require(min_revision)
    violations = Violations()
    items = read_texts(request.items, violations, service.limits)
    options = read_encode_options(request.options, items, tokenizer, violations)
    padding = read_padding("options.padding", request.options.padding, tokenizer.size, violations)
    violations.check()

    def work() -> Pieces[Serialized]:
        large = LargeResponse(service.max_response_bytes)
        response = pb.EncodeResponse(vocabulary=vocabulary_ref(tokenizer.reference))
        truncated: list[int] = []
        for rows in _encode_groups(service, tokenizer, items, options):
            for row in rows:
                sequence = response.token_batch.sequences.add(ids=row.ids)
                large.count(sequence.ByteSize())
                truncated.append(row.num_truncated)
                if options.detailed:
                    large.append(pb.EncodeResponse(details=[_details(row)]))
            yield
        if padding is not None:
            ids = [sequence.ids for sequence in response.token_batch.sequences]
            padded = padded_batch(ids, padding, tokenizer, service.limits)
            response.padded_batch.CopyFrom(padded)
        if any(truncated) and not options.detailed:
            response.details.extend(
                pb.EncodingDetails(truncated_token_count=count) for count in truncated
            )
        return large.joined(response)

    cost = encoding_cost(items, options, service.max_response_bytes)
    return await service.pool.run_pieces(service.metrics.timed_pieces("encode", work()), cost)


async def encode_stream(
    request_iterator: AsyncIterator[pb.EncodeStreamRequest], service: Service
) -> AsyncIterator[pb.EncodeStreamResponse]:
    """Encodes texts one by one. What fails for one is said in its answer."""
    async with aclosing(until_drained(request_iterator, service.draining)) as requests:
        async for request in requests:
            try:
                yield await _encode_item(request, service)
            except ServiceError as error:  # of this item: the stream goes on
                yield pb.EncodeStreamResponse(item_id=request.item_id, error=item_error(error))


async def count_tokens(request: pb.CountTokensRequest, service: Service) -> pb.CountTokensResponse:
    """Counts the ids that `Encode` would give for each text.

    Raises:
        InvalidField: one or more fields are wrong.
    """
    tokenizer = service.vocabulary.current
    violations = Violations()
    items = read_texts(request.items, violations, service.limits)
    as_encode = pb.EncodeOptions(parse_special_tokens=request.parse_special_tokens)
    if request.HasField("add_special_tokens"):
        as_encode.add_special_tokens = request.add_special_tokens
    options = read_encode_options(as_encode, items, tokenizer, violations)
    violations.check()

    def work() -> Pieces[pb.CountTokensResponse]:
        counts: list[int] = []
        for rows in _encode_groups(service, tokenizer, items, options):
            counts += [len(row.ids) for row in rows]
            yield
        return pb.CountTokensResponse(counts=counts, vocabulary=vocabulary_ref(tokenizer.reference))

    cost = encoding_cost(items, options, 0)
    return await service.pool.run_pieces(service.metrics.timed_pieces("encode", work()), cost)


def read_texts(
    items: Sequence[pb.TextItem], violations: Violations, limits: RequestLimits
) -> list[Text]:
    """Reads texts and pairs; none, too many, and each one that is too long are noted."""
    if not violations.check_count("items", items, limits.max_items):
        return []
    return [
        _read_text(f"items[{index}]", item, violations, limits) for index, item in enumerate(items)
    ]


def read_text(field: str, text: str, violations: Violations, limits: RequestLimits) -> str:
    """Returns a text; one that is too long is noted."""
    # A character has at most 4 bytes, so most texts need not be encoded to know.
    if len(text) * 4 > limits.max_text_bytes and len(text.encode()) > limits.max_text_bytes:
        violations.add(field, f"must have at most {limits.max_text_bytes} bytes")
    return text


def read_encode_options(
    message: pb.EncodeOptions, items: Sequence[Text], tokenizer: Tokenizer, violations: Violations
) -> EncodeOptions:
    """Reads options, except for padding; what is out of its range is noted."""
    add_special_tokens = (
        message.add_special_tokens if message.HasField("add_special_tokens") else True
    )
    num_template_tokens = 0
    if add_special_tokens:
        kinds = {item.pair is not None for item in items}
        lengths = (tokenizer.template_length(pair=pair) for pair in kinds)
        num_template_tokens = max(lengths, default=0)
    truncation = None
    if message.HasField("truncation"):
        truncation = read_truncation(
            "options.truncation", message.truncation, num_template_tokens, violations
        )
    return EncodeOptions(
        add_special_tokens=add_special_tokens,
        parse_special_tokens=message.parse_special_tokens,
        truncation=truncation,
        offset_unit=violations.known("options.offset_unit", message.offset_unit, _UNITS),
        special_tokens_mask=message.return_special_tokens_mask,
        word_ids=message.return_word_ids,
        tokens=message.return_tokens,
        token_bytes=message.return_token_bytes,
        token_type_ids=message.return_token_type_ids,
    )


def read_truncation(
    field: str, message: pb.TruncationOptions, num_template_tokens: int, violations: Violations
) -> Truncation:
    """Reads how rows are cut; a length that template tokens alone exceed is noted too."""
    violations.in_range(f"{field}.max_length", message.max_length, 1, MAX_ROW_LENGTH)
    if 1 <= message.max_length < num_template_tokens:
        violations.add(
            f"{field}.max_length",
            f"must be at least {num_template_tokens}, the tokens that are added to each row",
        )
    side = read_side(f"{field}.side", message.side, "right", violations)
    return Truncation(message.max_length, side)


async def _encode_item(
    request: pb.EncodeStreamRequest, service: Service
) -> pb.EncodeStreamResponse:
    tokenizer = service.vocabulary.current
    violations = Violations()
    item = _read_text("item", request.item, violations, service.limits)
    options = read_encode_options(request.options, [item], tokenizer, violations)
    padding = read_padding("options.padding", request.options.padding, tokenizer.size, violations)
    if padding is not None:
        violations.add("options.padding", "must be unset: a stream has no batch")
    violations.check()

    def work() -> Pieces[pb.EncodeStreamResponse]:
        response = pb.EncodeStreamResponse(
            item_id=request.item_id, vocabulary=vocabulary_ref(tokenizer.reference)
        )
        for (row,) in _encode_groups(service, tokenizer, [item], options):
            yield
            response.sequence.ids.extend(row.ids)
            if options.detailed or row.num_truncated:
                response.details.CopyFrom(_details(row))
        return response

    cost = encoding_cost([item], options, service.max_response_bytes)
    return await service.pool.run_pieces(service.metrics.timed_pieces("encode", work()), cost)


def _encode_groups(
    service: Service, tokenizer: Tokenizer, items: Sequence[Text], options: EncodeOptions
) -> Iterator[list[EncodedRow]]:
    """Encodes items group by group, so that not all rows are in memory at once."""
    counts: list[int] = []
    for group in groups(items):
        rows = tokenizer.encode(group, options)
        counts += [len(row.ids) for row in rows]
        service.metrics.encoded(row.ids for row in rows)
        yield rows
    num_characters = sum(len(item.text) + len(item.pair or "") for item in items)
    service.metrics.processed("encode", counts, num_characters)


def _read_text(
    field: str, item: pb.TextItem, violations: Violations, limits: RequestLimits
) -> Text:
    text = read_text(f"{field}.text", item.text, violations, limits)
    if not item.HasField("text_pair"):
        return Text(text)
    return Text(text, read_text(f"{field}.text_pair", item.text_pair, violations, limits))


def _details(row: EncodedRow) -> pb.EncodingDetails:
    """Writes what was asked for in addition to ids, one list at a time: others run in between."""
    message = pb.EncodingDetails(truncated_token_count=row.num_truncated)
    for spans in slices(row.spans):
        message.offset_starts.extend([start for start, _ in spans])
        message.offset_ends.extend([end for _, end in spans])
    _extend(message.special_tokens_mask, row.special_tokens_mask)
    _extend(message.word_ids, row.word_ids)
    _extend(message.tokens, row.tokens)
    _extend(message.token_bytes, row.token_bytes)
    _extend(message.token_type_ids, row.token_type_ids)
    return message


def _extend(field: MutableSequence[_T], values: Sequence[_T]) -> None:
    for some in slices(values):
        field.extend(some)
