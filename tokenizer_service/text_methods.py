"""The methods of `lockstep.v1.TokenizerService` that turn text into ids and back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2

from rpc.errors import InvalidField, ServiceError
from rpc.status import item_error
from rpc.streams import until_drained
from tokenizer_service.batch_convert import (
    Padding,
    pad_rows,
    read_padding,
    read_prompt_batch,
    read_token_batch,
    token_batch,
)
from tokenizer_service.decode_stream import SequenceDecoders, read_decode_options
from tokenizer_service.encoding import EncodedRow, EncodeOptions, Text
from tokenizer_service.incremental import DecodeOptions
from tokenizer_service.served_tokenizer import Context, TokenizerMethods
from tokenizer_service.text_convert import (
    details,
    read_chat,
    read_encode_options,
    read_text,
    read_texts,
)
from tokenizer_service.tokenizer import Tokenizer
from tokenizer_service.vocabulary_convert import read_reference, vocabulary_ref

# Fewer ids than this are decoded on the event loop: that takes microseconds.
_FEW_IDS = 256
_ROUND_TRIP = EncodeOptions(add_special_tokens=False, parse_special_tokens=True)


class TextMethods(TokenizerMethods):
    """Parses, hands the work to the pool, and writes the response."""

    async def Encode(self, request: pb.EncodeRequest, context: Context) -> pb.EncodeResponse:
        min_revision = request.min_revision if request.HasField("min_revision") else None
        await self._vocabulary.reach(min_revision)
        tokenizer = self._vocabulary.require(min_revision)
        items = read_texts(request.items, self._limits)
        options = read_encode_options(request.options, items, tokenizer)
        padding = read_padding("options.padding", request.options.padding, tokenizer.size)

        def work() -> pb.EncodeResponse:
            rows = self._encode_rows(tokenizer, items, options)
            response = pb.EncodeResponse(
                token_batch=token_batch([row.ids for row in rows]),
                vocabulary=vocabulary_ref(tokenizer.reference),
            )
            if padding is not None:
                response.padded_batch.CopyFrom(
                    self._pad("options.padding", tokenizer, [row.ids for row in rows], padding)
                )
            if options.detailed or any(row.num_truncated for row in rows):
                response.details.extend(details(row) for row in rows)
            return response

        return await self._pool.run(work)

    async def EncodeStream(
        self, request_iterator: AsyncIterator[pb.EncodeStreamRequest], context: Context
    ) -> AsyncIterator[pb.EncodeStreamResponse]:
        async with aclosing(until_drained(request_iterator, self._draining)) as requests:
            async for request in requests:
                try:
                    yield await self._encode_item(request)
                except ServiceError as error:  # of this item: the stream goes on
                    yield pb.EncodeStreamResponse(item_id=request.item_id, error=item_error(error))

    async def Decode(self, request: pb.DecodeRequest, context: Context) -> pb.DecodeResponse:
        given = read_reference(request.vocabulary) if request.HasField("vocabulary") else None
        await self._vocabulary.reach(given.revision if given else None)
        size = self._vocabulary.size_for(given)
        tokenizer = self._vocabulary.current
        options = read_decode_options(request.options)

        def work() -> pb.DecodeResponse:
            rows = read_prompt_batch("batch", request.batch, size, self._limits)
            return pb.DecodeResponse(
                texts=self._decode_rows(tokenizer, rows, options, request),
                vocabulary=vocabulary_ref(tokenizer.reference),
            )

        return await self._pool.run(work)

    async def DecodeStream(
        self, request_iterator: AsyncIterator[pb.DecodeStreamRequest], context: Context
    ) -> AsyncIterator[pb.DecodeStreamResponse]:
        decoders = SequenceDecoders()
        async with aclosing(until_drained(request_iterator, self._draining)) as requests:
            async for request in requests:
                tokenizer = self._vocabulary.current
                if len(request.ids) < _FEW_IDS:
                    yield decoders.push(tokenizer, request)
                else:
                    yield await self._pool.run(
                        lambda t=tokenizer, r=request: decoders.push(t, r)  # type: ignore[misc]
                    )

    async def Pad(self, request: pb.PadRequest, context: Context) -> pb.PadResponse:
        tokenizer = self._vocabulary.current
        padding = read_padding("padding", request.padding, tokenizer.size) or Padding()
        if request.padding.strategy == pb.PADDING_STRATEGY_NONE:
            raise InvalidField("padding.strategy", "must be a way to pad")

        def work() -> pb.PadResponse:
            rows = read_token_batch(
                "token_batch", request.token_batch, tokenizer.size, self._limits
            )
            return pb.PadResponse(
                padded_batch=self._pad("padding", tokenizer, rows, padding),
                vocabulary=vocabulary_ref(tokenizer.reference),
            )

        return await self._pool.run(work)

    async def ApplyChatTemplate(
        self, request: pb.ApplyChatTemplateRequest, context: Context
    ) -> pb.ApplyChatTemplateResponse:
        tokenizer = self._vocabulary.current
        padding = read_padding("padding", request.padding, tokenizer.size)
        chat = read_chat(request, self._limits)
        with self._metrics.timed("chat"):
            rendered = await self._templates.apply(tokenizer, chat)
        rows = [row.ids for row in rendered.rows]
        self._metrics.processed("chat", [len(row) for row in rows], sum(map(len, rendered.texts)))
        response = pb.ApplyChatTemplateResponse(
            texts=rendered.texts,
            token_batch=token_batch(rows),
            template_fingerprint=rendered.template_fingerprint,
            vocabulary=vocabulary_ref(tokenizer.reference),
        )
        if padding is not None:
            response.padded_batch.CopyFrom(self._pad("padding", tokenizer, rows, padding))
        return response

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        tokenizer = self._vocabulary.current
        items = read_texts(request.items, self._limits)
        as_encode = pb.EncodeOptions(parse_special_tokens=request.parse_special_tokens)
        if request.HasField("add_special_tokens"):
            as_encode.add_special_tokens = request.add_special_tokens
        options = read_encode_options(as_encode, items, tokenizer)

        def work() -> pb.CountTokensResponse:
            rows = self._encode_rows(tokenizer, items, options)
            return pb.CountTokensResponse(
                counts=[len(row.ids) for row in rows],
                vocabulary=vocabulary_ref(tokenizer.reference),
            )

        return await self._pool.run(work)

    async def _encode_item(self, request: pb.EncodeStreamRequest) -> pb.EncodeStreamResponse:
        tokenizer = self._vocabulary.current
        item = read_text("item", request.item, self._limits)
        options = read_encode_options(request.options, [item], tokenizer)
        if read_padding("options.padding", request.options.padding, tokenizer.size) is not None:
            raise InvalidField("options.padding", "must be unset: a stream has no batch")
        rows = await self._pool.run(lambda: self._encode_rows(tokenizer, [item], options))
        response = pb.EncodeStreamResponse(
            item_id=request.item_id, vocabulary=vocabulary_ref(tokenizer.reference)
        )
        response.sequence.ids.extend(rows[0].ids)
        if options.detailed or rows[0].num_truncated:
            response.details.CopyFrom(details(rows[0]))
        return response

    def _encode_rows(
        self, tokenizer: Tokenizer, items: Sequence[Text], options: EncodeOptions
    ) -> list[EncodedRow]:
        with self._metrics.timed("encode"):
            rows = tokenizer.encode(items, options)
        num_characters = sum(len(item.text) + len(item.pair or "") for item in items)
        self._metrics.processed("encode", [len(row.ids) for row in rows], num_characters)
        return rows

    def _decode_rows(
        self,
        tokenizer: Tokenizer,
        rows: Sequence[Sequence[int]],
        options: DecodeOptions,
        request: pb.DecodeRequest,
    ) -> list[pb.DecodedText]:
        with self._metrics.timed("decode"):
            decoded = [pb.DecodedText(text=tokenizer.decode(row, options)) for row in rows]
        num_characters = sum(len(one.text) for one in decoded)
        self._metrics.processed("decode", [len(row) for row in rows], num_characters)
        for row, one in zip(rows, decoded, strict=True):
            if request.return_bytes:
                one.text_bytes = tokenizer.decode_bytes(row, options)
            if request.check_round_trip:
                _check_round_trip(tokenizer, row, one)
        return decoded

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


def _check_round_trip(tokenizer: Tokenizer, row: Sequence[int], decoded: pb.DecodedText) -> None:
    """Encodes the text again, control tokens included, and compares ids."""
    again = tokenizer.encode([Text(decoded.text)], _ROUND_TRIP)[0].ids
    decoded.round_trip = list(again) == list(row)
    if not decoded.round_trip:
        pairs = enumerate(zip(again, row, strict=False))
        shorter = min(len(again), len(row))
        decoded.first_difference = next((i for i, (a, b) in pairs if a != b), shorter)
