"""`Decode` and `DecodeStream`: ids become text."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from lockstep.v1 import tokenizer_service_pb2 as pb

from rpc.errors import InvalidField
from rpc.handlers import Serialized
from rpc.slices import slices
from rpc.streams import until_drained
from tokenizer_service.rpcs.large_response import LargeResponse
from tokenizer_service.rpcs.service import Service
from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.text.incremental import DecodeOptions, IncrementalDecoder
from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.text.work_cost import decoding_cost
from tokenizer_service.worker_pool import Pieces, finish
from wire.prompts import Bounds, read_prompts
from wire.token_ids import check_token_ids
from wire.violations import Violations
from wire.vocabulary import read_reference, vocabulary_ref

# Open sequences of one call. Each is a few hundred bytes.
MAX_SEQUENCES = 1024
# Fewer ids than this are decoded on the event loop: that takes microseconds.
_FEW_IDS = 256
_ROUND_TRIP = EncodeOptions(add_special_tokens=False, parse_special_tokens=True)


async def decode(request: pb.DecodeRequest, service: Service) -> Serialized:
    """Decodes rows of ids of the revision that the request names.

    Raises:
        InvalidField: one or more fields are wrong.
        ResponseTooLarge: the texts are too long.
        TokenIdOutOfRange: an id is not in the vocabulary.
        VocabularyBehind: the revision is newer than this replica's.
        VocabularyMismatch: the ids are of another vocabulary.
    """
    given = read_reference(request.vocabulary) if request.HasField("vocabulary") else None
    await service.vocabulary.reach(given.revision if given else None)
    size = service.vocabulary.size_for(given)
    tokenizer = service.vocabulary.current
    if request.vocabulary.or_newer:
        size = tokenizer.reference.size
    options = read_decode_options(request.options)

    def work() -> Pieces[Serialized]:
        violations = Violations()
        bounds = Bounds(service.limits.max_items)
        rows = read_prompts(request.batch, violations, bounds, field="batch", allow_empty_rows=True)
        violations.check()
        check_token_ids("batch", rows, size)
        yield
        return (yield from _decode_rows(service, tokenizer, rows, options, request))

    cost = decoding_cost(request.ByteSize(), service.max_response_bytes)
    return await service.pool.run_pieces(service.metrics.timed_pieces("decode", work()), cost)


async def decode_stream(
    request_iterator: AsyncIterator[pb.DecodeStreamRequest], service: Service
) -> AsyncIterator[pb.DecodeStreamResponse]:
    """Decodes sequences as their ids come, and never half a character.

    Raises:
        InvalidField: too many sequences are open.
        ResponseTooLarge: a text is too long.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    decoders = _SequenceDecoders()
    async with aclosing(until_drained(request_iterator, service.draining)) as requests:
        async for request in requests:
            tokenizer = service.vocabulary.current
            work = decoders.push(tokenizer, request, service.max_response_bytes)
            if len(request.ids) < _FEW_IDS:
                yield finish(work)
            else:
                cost = decoding_cost(request.ByteSize(), service.max_response_bytes)
                yield await service.pool.run_pieces(work, cost)


def read_decode_options(message: pb.DecodeOptions) -> DecodeOptions:
    """Reads how ids become text."""
    skip = message.skip_special_tokens if message.HasField("skip_special_tokens") else True
    clean_up = None
    if message.HasField("clean_up_tokenization_spaces"):
        clean_up = message.clean_up_tokenization_spaces
    return DecodeOptions(skip, clean_up)


def _decode_rows(
    service: Service,
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    options: DecodeOptions,
    request: pb.DecodeRequest,
) -> Pieces[Serialized]:
    response = LargeResponse(service.max_response_bytes)
    num_characters = 0
    for index, row in enumerate(rows):
        one = pb.DecodedText()
        one.text = yield from response.collect(tokenizer.decode_pieces(row, options), "")
        num_characters += len(one.text)
        if request.return_bytes:
            pieces = tokenizer.decode_byte_pieces(row, options)
            one.raw_bytes = yield from response.collect(pieces, b"", len(one.text))
        if request.check_round_trip:
            _check_round_trip(tokenizer, index, row, one, service.limits.max_text_bytes)
        response.append(pb.DecodeResponse(texts=[one]))
        yield
    service.metrics.processed("decode", [len(row) for row in rows], num_characters)
    return response.joined(pb.DecodeResponse(vocabulary=vocabulary_ref(tokenizer.reference)))


def _check_round_trip(
    tokenizer: Tokenizer, index: int, row: Sequence[int], decoded: pb.DecodedText, max_bytes: int
) -> None:
    """Encodes the text again, control tokens included, and compares ids."""
    text = Text(decoded.text)
    if text.num_bytes > max_bytes:
        raise InvalidField(
            "check_round_trip",
            f"needs texts of at most {max_bytes} bytes, as Encode does; row {index} has more",
        )
    again = tokenizer.encode([text], _ROUND_TRIP)[0].ids
    shorter = min(len(again), len(row))
    pairs = enumerate(zip(again, row, strict=False))
    first_difference = next((i for i, (a, b) in pairs if a != b), shorter)
    decoded.round_trip = first_difference == len(again) == len(row)
    if not decoded.round_trip:
        decoded.first_difference = first_difference


class _SequenceDecoders:
    """The decoders of one stream: one per sequence, from its first message to its last."""

    def __init__(self) -> None:
        self._decoders: dict[int, IncrementalDecoder] = {}

    def push(
        self, tokenizer: Tokenizer, request: pb.DecodeStreamRequest, limit_bytes: int
    ) -> Pieces[pb.DecodeStreamResponse]:
        """Appends ids to a sequence and returns the text that became certain.

        Args:
            tokenizer: the newest revision; ids of older ones mean the same in it.
            request: the message.
            limit_bytes: the largest response that is sent.

        Raises:
            InvalidField: too many sequences are open.
            ResponseTooLarge: the text is too long.
            TokenIdOutOfRange: an id is not in the vocabulary.
        """
        check_token_ids("ids", [request.ids], tokenizer.size, one_row=True)
        decoder = self._decoder(tokenizer, request)
        pieces = map(decoder.push, slices(request.ids))
        text = yield from LargeResponse(limit_bytes).collect(pieces, "")
        if request.end_of_sequence:
            text += decoder.finish()
            del self._decoders[request.sequence_id]
        return pb.DecodeStreamResponse(
            sequence_id=request.sequence_id,
            text=text,
            pending_byte_count=0 if request.end_of_sequence else decoder.pending_bytes,
            end_of_sequence=request.end_of_sequence,
            vocabulary=vocabulary_ref(tokenizer.reference),
        )

    def _decoder(self, tokenizer: Tokenizer, request: pb.DecodeStreamRequest) -> IncrementalDecoder:
        decoder = self._decoders.get(request.sequence_id)
        if decoder is not None:
            decoder.follow(tokenizer)
            return decoder
        if len(self._decoders) >= MAX_SEQUENCES:
            raise InvalidField(
                "sequence_id", f"exceeds the limit of {MAX_SEQUENCES} sequences at a time"
            )
        decoder = tokenizer.decoder(read_decode_options(request.options))
        self._decoders[request.sequence_id] = decoder
        return decoder
