"""The tokenizer service, for asyncio."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub

from lockstep_client.aio.connection import AsyncConnection, Requests
from lockstep_client.batch import Batch, Prompts, Row
from lockstep_client.connection import USE_DEFAULT, Timeout
from lockstep_client.exceptions import ProtocolError
from lockstep_client.requests import tokenizer as requests
from lockstep_client.requests.tokenizer import (
    ChatMessages,
    ChatOptions,
    DecodeOptions,
    EncodeOptions,
    PaddingOptions,
    ReturnTensors,
    Texts,
)
from lockstep_client.results import tokenizer as results
from lockstep_client.results.tokenizer import (
    ConvertedTokens,
    DecodedText,
    TokenizerInfo,
    VocabularyEntry,
)

if TYPE_CHECKING:  # exists in the stub file only
    from lockstep.v1.tokenizer_service_pb2_grpc import TokenizerServiceAsyncStub


class AsyncTokenizer:
    """As `Tokenizer`, for asyncio. Methods have the same names, keywords and errors."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = TokenizerServiceStub(connection.channel)

    async def encode(
        self,
        texts: Texts,
        *,
        return_tensors: ReturnTensors = "np",
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[EncodeOptions],
    ) -> Batch:
        """See `Tokenizer.encode`."""
        requests.check_return_tensors(return_tensors)
        request = requests.encode(texts, options)
        response = await self._connection.unary(self._stub.Encode, request, timeout)
        return results.encoded(response, return_tensors)

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
        self, rows: Prompts, *, timeout: Timeout = USE_DEFAULT, **options: Unpack[DecodeOptions]
    ) -> list[str]: ...

    async def decode(
        self, rows: Any, *, timeout: Timeout = USE_DEFAULT, **options: Unpack[DecodeOptions]
    ) -> str | list[str]:
        """See `Tokenizer.decode`."""
        texts = [row.text for row in await self.decode_rows(rows, timeout=timeout, **options)]
        return texts[0] if requests.is_one_row(rows) else texts

    async def decode_rows(
        self,
        rows: Prompts | Sequence[int],
        *,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[DecodeOptions],
    ) -> list[DecodedText]:
        """See `Tokenizer.decode_rows`."""
        request = requests.decode(rows, options)
        return results.decoded(await self._connection.unary(self._stub.Decode, request, timeout))

    async def decode_stream(
        self,
        token_ids: Iterable[int] | AsyncIterable[int],
        *,
        skip_special_tokens: bool | None = None,
        timeout: Timeout = USE_DEFAULT,
    ) -> AsyncIterator[str]:
        """See `Tokenizer.decode_stream`."""
        async with self.open_decoder(
            skip_special_tokens=skip_special_tokens, timeout=timeout
        ) as decoder:
            async for token_id in _as_async(token_ids):
                if text := await decoder.feed([token_id]):
                    yield text
            if text := await decoder.end():
                yield text

    def open_decoder(
        self, *, skip_special_tokens: bool | None = None, timeout: Timeout = USE_DEFAULT
    ) -> "AsyncDecoder":
        """See `Tokenizer.open_decoder`."""
        options = requests.decode_options({"skip_special_tokens": skip_special_tokens})
        return AsyncDecoder(self._connection, self._stub, options, timeout)

    async def pad(
        self,
        rows: Batch | Sequence[Row],
        *,
        return_tensors: ReturnTensors = "np",
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[PaddingOptions],
    ) -> Batch:
        """See `Tokenizer.pad`."""
        requests.check_return_tensors(return_tensors)
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
        """See `Tokenizer.apply_chat_template`."""
        requests.check_return_tensors(return_tensors)
        request = requests.apply_chat_template(conversations, options)
        response = await self._connection.unary(self._stub.ApplyChatTemplate, request, timeout)
        return results.rendered(response, return_tensors)

    async def count_tokens(
        self,
        texts: Texts,
        *,
        add_special_tokens: bool | None = None,
        parse_special_tokens: bool | None = None,
        timeout: Timeout = USE_DEFAULT,
    ) -> list[int]:
        """See `Tokenizer.count_tokens`."""
        request = requests.count_tokens(texts, add_special_tokens, parse_special_tokens)
        response = await self._connection.unary(self._stub.CountTokens, request, timeout)
        return list(response.counts)

    async def convert_tokens(
        self,
        tokens: Sequence[str] = (),
        ids: Sequence[int] = (),
        *,
        timeout: Timeout = USE_DEFAULT,
    ) -> ConvertedTokens:
        """See `Tokenizer.convert_tokens`."""
        request = requests.convert_tokens(tokens, ids)
        response = await self._connection.unary(self._stub.ConvertTokens, request, timeout)
        return results.converted(response)

    async def info(self, *, timeout: Timeout = USE_DEFAULT) -> TokenizerInfo:
        """See `Tokenizer.info`."""
        request = pb.GetTokenizerInfoRequest()
        response = await self._connection.unary(self._stub.GetTokenizerInfo, request, timeout)
        return TokenizerInfo.from_message(response)

    async def vocabulary(
        self, *, start_id: int = 0, timeout: Timeout = USE_DEFAULT
    ) -> AsyncIterator[VocabularyEntry]:
        """See `Tokenizer.vocabulary`."""
        request = requests.get_vocabulary(start_id)
        responses = self._connection.stream(self._stub.GetVocabulary, request, timeout)
        async with aclosing(responses):
            async for response in responses:
                for entry in response.entries:
                    yield VocabularyEntry.from_message(entry)

    async def artifact(self, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """See `Tokenizer.artifact`."""
        request = pb.GetTokenizerArtifactRequest()
        pieces = self._connection.stream(self._stub.GetTokenizerArtifact, request, timeout)
        return results.artifact([piece async for piece in pieces])


class AsyncDecoder:
    """As `Decoder`, for asyncio."""

    def __init__(
        self,
        connection: AsyncConnection,
        stub: "TokenizerServiceAsyncStub",
        options: pb.DecodeOptions,
        timeout: Timeout,
    ) -> None:
        self._options: pb.DecodeOptions | None = options  # for the first message only
        self._requests = Requests[pb.DecodeStreamRequest]()
        self._responses = connection.exchange(stub.DecodeStream, self._requests, timeout)

    async def feed(self, token_ids: Sequence[int]) -> str:
        """See `Decoder.feed`."""
        return await self._exchange(requests.decode_piece(token_ids))

    async def end(self) -> str:
        """See `Decoder.end`."""
        text = await self._exchange(pb.DecodeStreamRequest(end_of_sequence=True))
        self._requests.end()
        async for _ in self._responses:
            pass
        return text

    async def close(self) -> None:
        """See `Decoder.close`."""
        await self._responses.aclose()

    async def _exchange(self, request: pb.DecodeStreamRequest) -> str:
        if self._options is not None:
            request.options.CopyFrom(self._options)
            self._options = None
        self._requests.put(request)
        response = await anext(self._responses, None)
        if response is None:
            raise ProtocolError("The tokenizer service ended the stream too early.")
        return response.text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _as_async(items: Iterable[int] | AsyncIterable[int]) -> AsyncIterator[int]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
