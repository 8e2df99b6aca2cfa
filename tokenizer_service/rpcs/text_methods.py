"""The methods of `lockstep.v1.TokenizerService` that turn text into ids and back."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing

from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2

from rpc.errors import InvalidField, ServiceError
from rpc.handlers import Serialized
from rpc.status import item_error
from rpc.streams import until_drained
from tokenizer_service.chat.chat import ChatRequest, RenderedChat
from tokenizer_service.rpcs.batch_convert import (
    Padding,
    pad_rows,
    read_padding,
    read_prompt_batch,
    read_token_batch,
    token_batch,
)
from tokenizer_service.rpcs.decode_stream import SequenceDecoders, read_decode_options
from tokenizer_service.rpcs.response_parts import ResponseParts
from tokenizer_service.rpcs.served_tokenizer import Context, TokenizerMethods
from tokenizer_service.rpcs.text_convert import (
    details,
    read_chat,
    read_encode_options,
    read_text,
    read_texts,
)
from tokenizer_service.rpcs.vocabulary_convert import read_reference, vocabulary_ref
from tokenizer_service.text.encoding import EncodedRow, EncodeOptions, Text, groups
from tokenizer_service.text.incremental import DecodeOptions
from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.text.work_cost import chat_cost, decoding_cost, encoding_cost
from tokenizer_service.worker_pool import Pieces, finish

# Fewer ids than this are decoded on the event loop: that takes microseconds.
_FEW_IDS = 256
_ROUND_TRIP = EncodeOptions(add_special_tokens=False, parse_special_tokens=True)


class TextMethods(TokenizerMethods):
    """Parses, hands the work to the pool, and writes the response.

    Methods that return `Serialized` have made their response in a thread: the event loop
    would stand still meanwhile.
    """

    async def Encode(  # type: ignore[override]
        self, request: pb.EncodeRequest, context: Context
    ) -> Serialized:
        min_revision = request.min_revision if request.HasField("min_revision") else None
        await self._vocabulary.reach(min_revision)
        tokenizer = self._vocabulary.require(min_revision)
        items = read_texts(request.items, self._limits)
        options = read_encode_options(request.options, items, tokenizer)
        padding = read_padding("options.padding", request.options.padding, tokenizer.size)

        def work() -> Pieces[Serialized]:
            parts = ResponseParts(self._max_response_bytes)
            response = pb.EncodeResponse(vocabulary=vocabulary_ref(tokenizer.reference))
            truncated: list[int] = []
            for rows in self._encode_groups(tokenizer, items, options):
                for row in rows:
                    sequence = response.token_batch.sequences.add(ids=row.ids)
                    parts.count(sequence.ByteSize())
                    truncated.append(row.num_truncated)
                    if options.detailed:
                        parts.append(pb.EncodeResponse(details=[details(row)]))
                yield
            if padding is not None:
                ids = [sequence.ids for sequence in response.token_batch.sequences]
                padded = self._pad("options.padding", tokenizer, ids, padding)
                response.padded_batch.CopyFrom(padded)
            if any(truncated) and not options.detailed:
                response.details.extend(
                    pb.EncodingDetails(truncated_token_count=count) for count in truncated
                )
            return parts.joined(response)

        cost = encoding_cost(items, options, self._max_response_bytes)
        return await self._pool.run_pieces(self._metrics.timed_pieces("encode", work()), cost)

    async def EncodeStream(
        self, request_iterator: AsyncIterator[pb.EncodeStreamRequest], context: Context
    ) -> AsyncIterator[pb.EncodeStreamResponse]:
        async with aclosing(until_drained(request_iterator, self._draining)) as requests:
            async for request in requests:
                try:
                    yield await self._encode_item(request)
                except ServiceError as error:  # of this item: the stream goes on
                    yield pb.EncodeStreamResponse(item_id=request.item_id, error=item_error(error))

    async def Decode(  # type: ignore[override]
        self, request: pb.DecodeRequest, context: Context
    ) -> Serialized:
        given = read_reference(request.vocabulary) if request.HasField("vocabulary") else None
        await self._vocabulary.reach(given.revision if given else None)
        size = self._vocabulary.size_for(given)
        tokenizer = self._vocabulary.current
        options = read_decode_options(request.options)

        def work() -> Pieces[Serialized]:
            rows = read_prompt_batch("batch", request.batch, size, self._limits)
            yield
            return (yield from self._decode_rows(tokenizer, rows, options, request))

        cost = decoding_cost(request.ByteSize(), self._max_response_bytes)
        return await self._pool.run_pieces(self._metrics.timed_pieces("decode", work()), cost)

    async def DecodeStream(
        self, request_iterator: AsyncIterator[pb.DecodeStreamRequest], context: Context
    ) -> AsyncIterator[pb.DecodeStreamResponse]:
        decoders = SequenceDecoders()
        async with aclosing(until_drained(request_iterator, self._draining)) as requests:
            async for request in requests:
                tokenizer = self._vocabulary.current
                work = decoders.push(tokenizer, request, self._max_response_bytes)
                if len(request.ids) < _FEW_IDS:
                    yield finish(work)
                else:
                    cost = decoding_cost(request.ByteSize(), self._max_response_bytes)
                    yield await self._pool.run_pieces(work, cost)

    async def Pad(self, request: pb.PadRequest, context: Context) -> pb.PadResponse:
        tokenizer = self._vocabulary.current
        padding = read_padding("padding", request.padding, tokenizer.size) or Padding()
        if request.padding.strategy == pb.PADDING_STRATEGY_NONE:
            raise InvalidField("padding.strategy", "must be a way to pad")

        def work() -> Pieces[pb.PadResponse]:
            rows = read_token_batch(
                "token_batch", request.token_batch, tokenizer.size, self._limits
            )
            yield
            return pb.PadResponse(
                padded_batch=self._pad("padding", tokenizer, rows, padding),
                vocabulary=vocabulary_ref(tokenizer.reference),
            )

        cost = decoding_cost(request.ByteSize(), self._max_response_bytes)
        return await self._pool.run_pieces(work(), cost)

    async def ApplyChatTemplate(  # type: ignore[override]
        self, request: pb.ApplyChatTemplateRequest, context: Context
    ) -> Serialized:
        tokenizer = self._vocabulary.current
        padding = read_padding("padding", request.padding, tokenizer.size)
        cost = chat_cost(request.ByteSize())

        def read() -> Pieces[ChatRequest]:
            yield
            return read_chat(request, self._limits)

        chat = await self._pool.run_pieces(read(), cost)

        def respond(rendered: RenderedChat) -> Serialized:
            rows = [row.ids for row in rendered.rows]
            num_characters = sum(map(len, rendered.texts))
            self._metrics.processed("chat", [len(row) for row in rows], num_characters)
            response = pb.ApplyChatTemplateResponse(
                texts=rendered.texts,
                token_batch=token_batch(rows),
                template_fingerprint=rendered.template_fingerprint,
                vocabulary=vocabulary_ref(tokenizer.reference),
            )
            if padding is not None:
                response.padded_batch.CopyFrom(self._pad("padding", tokenizer, rows, padding))
            return Serialized(response.SerializeToString())

        with self._metrics.timed("chat"):
            return await self._templates.apply(
                tokenizer, chat, respond, request_bytes=cost.request_bytes
            )

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        tokenizer = self._vocabulary.current
        items = read_texts(request.items, self._limits)
        as_encode = pb.EncodeOptions(parse_special_tokens=request.parse_special_tokens)
        if request.HasField("add_special_tokens"):
            as_encode.add_special_tokens = request.add_special_tokens
        options = read_encode_options(as_encode, items, tokenizer)

        def work() -> Pieces[pb.CountTokensResponse]:
            counts: list[int] = []
            for rows in self._encode_groups(tokenizer, items, options):
                counts += [len(row.ids) for row in rows]
                yield
            return pb.CountTokensResponse(
                counts=counts, vocabulary=vocabulary_ref(tokenizer.reference)
            )

        cost = encoding_cost(items, options, 0)
        return await self._pool.run_pieces(self._metrics.timed_pieces("encode", work()), cost)

    async def _encode_item(self, request: pb.EncodeStreamRequest) -> pb.EncodeStreamResponse:
        tokenizer = self._vocabulary.current
        item = read_text("item", request.item, self._limits)
        options = read_encode_options(request.options, [item], tokenizer)
        if read_padding("options.padding", request.options.padding, tokenizer.size) is not None:
            raise InvalidField("options.padding", "must be unset: a stream has no batch")

        def work() -> Pieces[pb.EncodeStreamResponse]:
            response = pb.EncodeStreamResponse(
                item_id=request.item_id, vocabulary=vocabulary_ref(tokenizer.reference)
            )
            for (row,) in self._encode_groups(tokenizer, [item], options):
                yield
                response.sequence.ids.extend(row.ids)
                if options.detailed or row.num_truncated:
                    response.details.CopyFrom(details(row))
            return response

        cost = encoding_cost([item], options, self._max_response_bytes)
        return await self._pool.run_pieces(self._metrics.timed_pieces("encode", work()), cost)

    def _encode_groups(
        self, tokenizer: Tokenizer, items: Sequence[Text], options: EncodeOptions
    ) -> Iterator[list[EncodedRow]]:
        """Encodes items group by group, so that not all rows are in memory at once."""
        counts: list[int] = []
        for group in groups(items):
            rows = tokenizer.encode(group, options)
            counts += [len(row.ids) for row in rows]
            yield rows
        num_characters = sum(len(item.text) + len(item.pair or "") for item in items)
        self._metrics.processed("encode", counts, num_characters)

    def _decode_rows(
        self,
        tokenizer: Tokenizer,
        rows: Sequence[Sequence[int]],
        options: DecodeOptions,
        request: pb.DecodeRequest,
    ) -> Pieces[Serialized]:
        parts = ResponseParts(self._max_response_bytes)
        num_characters = 0
        for index, row in enumerate(rows):
            one = pb.DecodedText()
            one.text = yield from parts.collect(tokenizer.decode_pieces(row, options), "")
            num_characters += len(one.text)
            if request.return_bytes:
                pieces = tokenizer.decode_byte_pieces(row, options)
                one.text_bytes = yield from parts.collect(pieces, b"", len(one.text))
            if request.check_round_trip:
                self._check_round_trip(tokenizer, index, row, one)
            parts.append(pb.DecodeResponse(texts=[one]))
            yield
        self._metrics.processed("decode", [len(row) for row in rows], num_characters)
        return parts.joined(pb.DecodeResponse(vocabulary=vocabulary_ref(tokenizer.reference)))

    def _check_round_trip(
        self, tokenizer: Tokenizer, index: int, row: Sequence[int], decoded: pb.DecodedText
    ) -> None:
        """Encodes the text again, control tokens included, and compares ids."""
        text, limit = Text(decoded.text), self._limits.max_text_bytes
        if text.num_bytes > limit:
            raise InvalidField(
                "check_round_trip",
                f"needs texts of at most {limit} bytes, as Encode does; row {index} has more",
            )
        again = tokenizer.encode([text], _ROUND_TRIP)[0].ids
        shorter = min(len(again), len(row))
        pairs = enumerate(zip(again, row, strict=False))
        first_difference = next((i for i, (a, b) in pairs if a != b), shorter)
        decoded.round_trip = first_difference == len(again) == len(row)
        if not decoded.round_trip:
            decoded.first_difference = first_difference

    def _pad(
        self, field: str, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], padding: Padding
    ) -> tokens_pb2.PaddedBatch:
        return pad_rows(
            field,
            rows,
            padding,
            default_pad_token_id=tokenizer.pad_token_id,
            limits=self._limits,
        )
