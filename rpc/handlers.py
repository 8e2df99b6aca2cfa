"""Runs the methods of a handler inside of a scope, whatever their kind.

grpc.aio knows four kinds of methods and two styles of writing the streaming
ones, as an async generator or as a coroutine that calls `context.write`. An
interceptor should not have to know: it says what happens around a call as an
async context manager, and `enclose` puts it there.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from rpc import status
from rpc.errors import ServiceError

if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
Scope = Callable[[Context], AbstractAsyncContextManager[None]]
Prepare = Callable[[Context], Awaitable[None]]
Codec = Callable[[Any], Any]

_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

_CANCELLATION_FOLLOWS_S = 1.0


def enclose(handler: Handler, scope: Scope) -> Handler:
    """Returns a handler whose calls run inside of `scope`, messages as before."""
    behavior = _respond(_method(handler), scope, handler.response_streaming, _same, _same)
    return _handler(handler, behavior, handler.request_deserializer, handler.response_serializer)


def with_codec(handler: Handler, decode: Codec, encode: Codec) -> Handler:
    """Returns the handler with other functions from and to bytes."""
    return _handler(handler, _method(handler), decode, encode)


def enclose_with_codec(handler: Handler, scope: Scope, decode: Codec, encode: Codec) -> Handler:
    """Returns a handler whose calls, messages included, run inside of `scope`.

    gRPC decodes the request of a unary call, and encodes the response, outside of
    the method, where no interceptor sees an exception. So both move into the
    scope; the codecs of a stream are called inside it already.

    Args:
        handler: the handler to wrap.
        scope: entered once per call, before the first message is decoded.
        decode: bytes to request, instead of the handler's own.
        encode: response to bytes, instead of the handler's own.
    """
    decode_inside = _same if handler.request_streaming else decode
    encode_inside = _same if handler.response_streaming else encode
    behavior = _respond(
        _method(handler), scope, handler.response_streaming, decode_inside, encode_inside
    )
    return _handler(
        handler,
        behavior,
        decode if handler.request_streaming else None,
        encode if handler.response_streaming else None,
    )


def before_answer(handler: Handler, prepare: Prepare) -> Handler:
    """Returns a handler that awaits `prepare` once there is an answer, before it is sent.

    What `prepare` sends, such as initial metadata, is therefore never part of a refusal:
    gRPC makes no second attempt of a call whose initial metadata it has seen.
    """
    method = _method(handler)

    async def unary(request: Any, context: Context) -> Any:
        response = await method(request, context)
        await prepare(context)
        return response

    async def stream(request: Any, context: Context) -> AsyncGenerator[Any]:
        async with aclosing(method(request, context)) as responses:
            async for first in responses:
                await prepare(context)
                yield first
                async for response in responses:
                    yield response

    behavior = stream if handler.response_streaming else unary
    return _handler(handler, behavior, handler.request_deserializer, handler.response_serializer)


def refuse(scope: Scope, error: Exception) -> Handler:
    """Returns a handler that raises `error` inside of `scope`, for any kind of call.

    The request is not read, not even the bytes of one that is unary.
    """

    async def behavior(requests: object, context: Context) -> None:
        async with scope(context):
            raise error

    return grpc.stream_stream_rpc_method_handler(
        behavior, request_deserializer=_same, response_serializer=_same
    )


@dataclass(frozen=True, slots=True)
class Serialized:
    """A response that its method has serialized by itself, off the event loop.

    A separate type, because gRPC would encode a text before it looks at its type.

    Attributes:
        data: the bytes of the message.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended, for metrics and logs.

    Attributes:
        code: the status code.
        reason: the `ErrorReason` without its prefix, and an empty text where there is none.
    """

    code: grpc.StatusCode
    reason: str = ""


def outcome(context: Context, error: BaseException | None) -> Outcome:
    """Returns how a call ends when `error`, or None, leaves its scope.

    A failure that was answered is the cause of `error`. It is the outcome also when
    the answer could not be delivered, as to a caller that had stopped reading.
    """
    if error is None:
        return Outcome(grpc.StatusCode.OK)
    if isinstance(error.__cause__, ServiceError):
        return Outcome(context.code(), status.reason(error.__cause__))
    if isinstance(error, grpc.aio.AbortError):
        return Outcome(context.code())
    if isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):
        expired = context.time_remaining() == 0  # None when the call has no deadline
        cancelled = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
        return Outcome(cancelled)
    return Outcome(grpc.StatusCode.UNKNOWN)


def _respond(
    method: Callable[..., Any], scope: Scope, streaming: bool, decode: Codec, encode: Codec
) -> Callable[..., Any]:
    async def unary(request: Any, context: Context) -> Any:
        async with scope(context):
            return encode(await method(decode(request), context))

    async def stream(request: Any, context: Context) -> None:
        async with scope(context):
            responses = method(decode(request), context)
            if isinstance(responses, AsyncGenerator):
                await _write_all(responses, context)
            else:
                await responses

    return stream if streaming else unary


async def _write_all(responses: AsyncGenerator[Any, None], context: Context) -> None:
    """Sends every response and closes the generator, whatever happens.

    When gRPC iterates and is cancelled inside of a write, the generator stays
    suspended and its `finally` runs whenever it is collected.
    """
    async with aclosing(responses):
        async for response in responses:
            try:
                await context.write(response)
            except grpc.aio.InternalError:
                # The connection is gone, and the cancellation of this call follows.
                # Let it come first: it would interrupt a `finally` that awaits.
                await asyncio.sleep(_CANCELLATION_FOLLOWS_S)
                raise


def _method(handler: Handler) -> Callable[..., Any]:
    methods = (handler.unary_unary, handler.unary_stream, handler.stream_unary)
    method = next((m for m in methods if m is not None), handler.stream_stream)
    assert method is not None, "A handler has exactly one method. This is a bug."
    return method


def _handler(
    like: Handler, behavior: Callable[..., Any], decode: Codec | None, encode: Codec | None
) -> Handler:
    make = _MAKERS[like.request_streaming, like.response_streaming]
    return make(behavior, request_deserializer=decode, response_serializer=encode)


def _same(message: Any) -> Any:
    return message
