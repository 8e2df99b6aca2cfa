"""The tokenizer service, for asyncio."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Unpack, overload

from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub

from lockstep_client._async.duplex import AsyncDuplex
from lockstep_client._async.row_calls import call_rows
from lockstep_client._calls import row_results
from lockstep_client._calls.argument import Argument
from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.row_requests import RowLimits
from lockstep_client._calls.row_results import Part
from lockstep_client._requests import tokenizer as requests
from lockstep_client._requests.options import (
    ChatOptions,
    DecodeOptions,
    EncodeOptions,
    ManyOptions,
    PaddingOptions,
)
from lockstep_client._requests.tokenizer import ChatMessages, Texts
from lockstep_client._results import tokenizer as results
from lockstep_client._results.tokenizer import (
    ConvertedTokens,
    DecodedText,
    TokenizerInfo,
    VocabularyEntry,
)
from lockstep_client._transport.async_connection import AsyncConnection, Items, iterate
from lockstep_client._transport.closing import AsyncClosing
from lockstep_client._transport.endpoint import USE_DEFAULT, Timeout
from lockstep_client._values.batch import (
    Batch,
    Prompts,
    ReturnTensors,
    Row,
    check_return_tensors,
)
from lockstep_client._values.one_line import described


@with_keywords
class AsyncTokenizer:
    """Turns text into ids and back.

    Every method takes a `timeout` in seconds, None for none, and raises
    `LockstepError` when its call fails.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = TokenizerServiceStub(connection.channel)
        self._limits: RowLimits | None = None

    def __repr__(self) -> str:
        return described(self, f"at {self._connection.endpoint.address}")

    async def encode(
        self,
        texts: Texts,
        *,
        return_tensors: ReturnTensors = "np",
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[EncodeOptions],
    ) -> Batch:
        """Encodes one text, or texts and pairs of texts, to one row each.

        Any number of texts: they go in as many requests as needed. All are encoded with one
        revision of the vocabulary, also while tokens are added.

        Args:
            texts: the texts.
            return_tensors: `np` for numpy, `pt` for torch.
            timeout: in seconds.
            **options: see `EncodeOptions`.

        Returns:
            The ids, ragged, and padded too where `padding` is given.
        """
        check_return_tensors(return_tensors)
        request = requests.encode(texts, options)

        given = Argument("texts", is_list=not isinstance(texts, str))

        async def encode(part: pb.EncodeRequest, timeout: Timeout) -> Batch:
            with given.named():
                response = await self._connection.unary(self._stub.Encode, part, timeout)
            return results.encoded(response)

        async def all_rows() -> list[Part[Batch]]:
            return await call_rows("encode", request, encode, self._row_limits, timeout, options)

        parts = await all_rows()
        if revision := row_results.newest_of_several(parts):
            request.min_revision = revision
            parts = await all_rows()
        return row_results.batch(parts, return_tensors)

    @overload
    async def decode(
        self,
        rows: Sequence[int],
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[DecodeOptions],
    ) -> str: ...

    @overload
    async def decode(
        self,
        rows: Prompts,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[DecodeOptions],
    ) -> list[str]: ...

    async def decode(
        self,
        rows: Any,
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[DecodeOptions],
    ) -> str | list[str]:
        """Decodes one row of ids to its text, or a batch of any size to one text per row.

        Args:
            rows: ids, lists of ids, or a batch, whose padding is dropped.
            timeout: in seconds.
            **options: see `DecodeOptions`.

        Raises:
            VocabularyMismatch: the batch belongs to another vocabulary.
            TokenIdOutOfRange: an id is not in it.
        """
        decoded = await self.decode_rows(rows, timeout=timeout, **options)
        texts: list[Any] = [row.text if isinstance(row, DecodedText) else row for row in decoded]
        return texts[0] if requests.is_one_row(rows) else texts

    async def decode_rows(
        self,
        rows: Prompts | Sequence[int],
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[DecodeOptions],
    ) -> list[DecodedText]:
        """As `decode`, with the bytes and the outcome of the round trip where asked for.

        Args:
            rows: as for `decode`; one row gives a list of one.
            timeout: in seconds.
            **options: see `DecodeOptions`.
        """
        request = requests.decode(rows, options)
        given = Argument("rows", is_list=not requests.is_one_row(rows))

        async def decode(part: pb.DecodeRequest, timeout: Timeout) -> list[DecodedText]:
            with given.named():
                response = await self._connection.unary(self._stub.Decode, part, timeout)
            return results.decoded(response)

        parts = await call_rows("decode", request, decode, self._row_limits, timeout, options)
        return row_results.listed(parts)

    async def decode_stream(
        self,
        token_ids: Items[int],
        *,
        skip_special_tokens: bool | None = None,
        timeout: Timeout = USE_DEFAULT,
    ) -> AsyncIterator[str]:
        """Yields the text of one sequence as its ids arrive, never half a character.

        Args:
            token_ids: the ids, asked for one by one.
            skip_special_tokens: whether special tokens are left out; True unless given.
            timeout: of the whole stream, in seconds.
        """
        async with self.open_decoder(
            skip_special_tokens=skip_special_tokens, timeout=timeout
        ) as decoder:
            async for token_id in iterate(token_ids):
                if text := await decoder.feed([token_id]):
                    yield text
            if text := await decoder.end():
                yield text

    def open_decoder(
        self, *, skip_special_tokens: bool | None = None, timeout: Timeout = USE_DEFAULT
    ) -> "AsyncDecoder":
        """Opens a decoder for one sequence whose ids arrive bit by bit. Close it.

        Args:
            skip_special_tokens: whether special tokens are left out; True unless given.
            timeout: of the whole stream, in seconds.
        """
        options = requests.decode_options({"skip_special_tokens": skip_special_tokens})
        return AsyncDecoder(
            AsyncDuplex(self._connection, self._stub.DecodeStream, timeout), options
        )

    async def pad(
        self,
        rows: Batch | Sequence[Row],
        *,
        return_tensors: ReturnTensors = "np",
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[PaddingOptions],
    ) -> Batch:
        """Pads rows to a rectangle: to the longest and on the left, unless told otherwise.

        Args:
            rows: lists of ids, or a batch, whose padding is dropped.
            return_tensors: `np` for numpy, `pt` for torch.
            timeout: in seconds.
            **options: see `PaddingOptions`.
        """
        check_return_tensors(return_tensors)
        request = requests.pad(rows, options)
        response = await self._connection.unary(self._stub.Pad, request, timeout)
        return results.padded(response, request, return_tensors)

    async def apply_chat_template(
        self,
        conversations: ChatMessages | Sequence[ChatMessages],
        *,
        return_tensors: ReturnTensors = "np",
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[ChatOptions],
    ) -> Batch:
        """Renders one conversation, or several, to one row each.

        Args:
            conversations: messages with `role` and `content`, or lists of them.
            return_tensors: `np` for numpy, `pt` for torch.
            timeout: in seconds.
            **options: see `ChatOptions`.

        Returns:
            The ids, with the rendered texts in `.texts`, for display only.

        Raises:
            NoChatTemplate: the tokenizer has none.
            ChatTemplateFailed: the template refused the messages.
        """
        check_return_tensors(return_tensors)
        request = requests.apply_chat_template(conversations, options)
        several = requests.are_several_conversations(conversations)
        with Argument("conversations", is_list=several).named():
            response = await self._connection.unary(self._stub.ApplyChatTemplate, request, timeout)
        return results.rendered(response, return_tensors)

    async def count_tokens(
        self,
        texts: Texts,
        *,
        add_special_tokens: bool | None = None,
        parse_special_tokens: bool | None = None,
        timeout: Timeout = USE_DEFAULT,
        **many: Unpack[ManyOptions],
    ) -> list[int]:
        """Counts the ids that `encode` gives for each text.

        Args:
            texts: as for `encode`.
            add_special_tokens: whether template tokens count; True unless given.
            parse_special_tokens: whether special tokens spelled in a text are control ids;
                False unless given.
            timeout: in seconds.
            **many: see `ManyOptions`.
        """
        request = requests.count_tokens(texts, add_special_tokens, parse_special_tokens)
        given = Argument("texts", is_list=not isinstance(texts, str))

        async def count(part: pb.CountTokensRequest, timeout: Timeout) -> list[int]:
            with given.named():
                response = await self._connection.unary(self._stub.CountTokens, part, timeout)
            return list(response.counts)

        parts = await call_rows("count", request, count, self._row_limits, timeout, many)
        return row_results.listed(parts)

    async def convert_tokens(
        self,
        tokens: Sequence[str] = (),
        ids: Sequence[int] = (),
        *,
        timeout: Timeout = USE_DEFAULT,
    ) -> ConvertedTokens:
        """Looks up ids by spelling (`Ġthe`), and entries of the vocabulary by id.

        Args:
            tokens: spellings; one that does not exist has the id None.
            ids: ids whose entries are returned.
            timeout: in seconds.

        Raises:
            TokenIdOutOfRange: an id is not in the vocabulary.
        """
        request = requests.convert_tokens(tokens, ids)
        response = await self._connection.unary(self._stub.ConvertTokens, request, timeout)
        return results.converted(response)

    async def info(self, *, timeout: Timeout = USE_DEFAULT) -> TokenizerInfo:
        """Describes the tokenizer."""
        request = pb.GetTokenizerInfoRequest()
        response = await self._connection.unary(self._stub.GetTokenizerInfo, request, timeout)
        return TokenizerInfo.from_message(response)

    async def vocabulary(
        self, *, start_id: int = 0, timeout: Timeout = USE_DEFAULT
    ) -> AsyncIterator[VocabularyEntry]:
        """Yields the entries of the vocabulary in order of id, from `start_id` on."""
        request = requests.get_vocabulary(start_id)
        responses = self._connection.stream(self._stub.GetVocabulary, request, timeout)
        async with aclosing(responses):
            async for response in responses:
                for entry in response.entries:
                    yield VocabularyEntry.from_message(entry)

    async def artifact(self, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Returns the tokenizer's files as a zip archive, checked against its checksum.

        Raises:
            ProtocolError: it arrived damaged.
        """
        request = pb.GetTokenizerArtifactRequest()
        pieces = self._connection.stream(self._stub.GetTokenizerArtifact, request, timeout)
        return results.artifact([piece async for piece in pieces])

    async def _row_limits(self, timeout: Timeout) -> RowLimits:
        if self._limits is None:  # calls at the same time ask each within its own timeout
            self._limits = RowLimits.of_texts(await self.info(timeout=timeout))
        return self._limits


class AsyncDecoder(AsyncClosing):
    """Decodes one sequence bit by bit. The pieces concatenate to the text of all ids."""

    def __init__(
        self,
        call: AsyncDuplex[pb.DecodeStreamRequest, pb.DecodeStreamResponse],
        options: pb.DecodeOptions,
    ) -> None:
        self._call = call
        self._options: pb.DecodeOptions | None = options  # for the first message only

    async def feed(self, token_ids: Sequence[int]) -> str:
        """Appends ids and returns the text that became certain, possibly none."""
        return await self._exchange(requests.decode_piece(token_ids))

    async def end(self) -> str:
        """Returns what was held back, broken bytes as U+FFFD, and ends the call."""
        text = await self._exchange(pb.DecodeStreamRequest(end_of_sequence=True))
        await self._call.finish()
        return text

    async def close(self) -> None:
        """Cancels the call, unless it has ended."""
        await self._call.close()

    async def _exchange(self, request: pb.DecodeStreamRequest) -> str:
        if self._options is not None:
            request.options.CopyFrom(self._options)
            self._options = None
        self._call.send(request)
        response = await self._call.receive()
        return response.text
