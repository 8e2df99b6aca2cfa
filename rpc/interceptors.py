"""What every call gets: failures become statuses, in one place.

Nothing else answers a caller: no parser's text, no exception's text, and the
code UNKNOWN never.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from grpc_status import rpc_status

from rpc import errors, field_limits, handlers, logging, status
from rpc.handlers import Codec, Context, Continuation, Handler
from rpc.lifecycle import Lifecycle

PUSHBACK_KEY = "grpc-retry-pushback-ms"
NEVER_RETRY = "-1"
DRAINING_KEY = "x-draining-ms"

# A client's retry policy may retry these codes, whatever the reason.
_RETRIED_CODES = (code_pb2.RESOURCE_EXHAUSTED, code_pb2.UNAVAILABLE)

CheckRoom = Callable[[str], None]

_log = structlog.stdlib.get_logger(__name__)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Answers `ServiceError` with its status and anything else as an `InternalError`.

    Args:
        max_message_bytes: largest request message decoded.
        max_response_bytes: largest response message sent.
        services: full names of what the port offers.
        hides_admins: whether others, for admins, have another port.
    """

    def __init__(
        self,
        *,
        max_message_bytes: int,
        max_response_bytes: int,
        services: Sequence[str],
        hides_admins: bool = False,
    ) -> None:
        self._services = services
        self._hides_admins = hides_admins
        self._max_message_bytes = max_message_bytes
        self._max_response_bytes = max_response_bytes

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # do not repeat what a scanner asked for
            scope = partial(_answer_errors, "This method")
            unknown = errors.NotImplemented_(
                "This method", services=self._services, hides_admins=self._hides_admins
            )
            return handlers.refuse(scope, unknown)
        method = handler_call_details.method.removeprefix("/")
        return handlers.enclose_with_codec(
            handler,
            partial(_answer_errors, method),
            self._decoder(handler.request_deserializer, method),
            self._encoder(handler.response_serializer),
        )

    def _decoder(self, parse: Codec | None, method: str) -> Codec:
        assert parse is not None, "Generated code always has a parser. This is a bug."
        limit = self._max_message_bytes
        request_type = _request_type(method)

        def decode(data: bytes) -> Any:
            if len(data) > limit:
                raise errors.MessageTooLarge(len(data), limit)
            try:
                if request_type is not None:
                    field_limits.check(data, request_type)
                return parse(data)
            except DecodeError:
                raise errors.MalformedMessage(method) from None

        return decode

    def _encoder(self, serialize: Codec | None) -> Codec:
        assert serialize is not None, "Generated code always has a serializer. This is a bug."
        limit = self._max_response_bytes

        def encode(response: Any) -> bytes:
            is_serialized = isinstance(response, handlers.Serialized)
            data: bytes = response.data if is_serialized else serialize(response)
            if len(data) > limit:
                raise errors.ResponseTooLarge(len(data), limit)
            return data

        return encode


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls in while the server is ready, and counts them until they are answered.

    A call that is turned away is not read: its refusal costs as little as a refusal can, and
    what runs is not held up.

    Args:
        lifecycle: the server's.
        check_room: raises the refusal of a call for which there is no room, given its path.
        continuing: paths of the methods that are let in while the server drains, too. Their
            callers are told of it, with the milliseconds that are left.
    """

    def __init__(
        self, lifecycle: Lifecycle, check_room: CheckRoom, continuing: Collection[str]
    ) -> None:
        self._lifecycle = lifecycle
        self._check_room = check_room
        self._continuing = continuing

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        continues = method in self._continuing
        try:
            self._lifecycle.check_open(continues=continues)
            self._check_room(method)
        except errors.ServiceError as refusal:
            return handlers.refuse(self._counted, refusal)
        return handlers.enclose(handler, partial(self._admitted, continues))

    @asynccontextmanager
    async def _admitted(self, continues: bool, context: Context) -> AsyncIterator[None]:
        async with self._counted(context), self._lifecycle.admitted(continues=continues):
            yield
            if continues and (left_s := self._lifecycle.drain_left_s) is not None:
                context.set_trailing_metadata(((DRAINING_KEY, str(round(left_s * 1000))),))

    @asynccontextmanager
    async def _counted(self, context: Context) -> AsyncIterator[None]:
        self._lifecycle.arrived()
        context.add_done_callback(self._answered)  # type: ignore[arg-type]  # a class of its own in the stubs
        yield

    def _answered(self, context: Context) -> None:
        self._lifecycle.answered()


@cache
def _request_type(method: str) -> Descriptor | None:
    """Returns what a method, `package.Service/Method`, reads; None where no schema says so."""
    service, _, name = method.rpartition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return None
    return found.methods_by_name[name].input_type


@asynccontextmanager
async def _answer_errors(method: str, context: Context) -> AsyncIterator[None]:
    try:
        try:
            yield
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise  # already answered, or the caller is gone
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # to swallow the caller's cancellation would leak the call
            await _abort(method, context, error)
        except (Exception, BaseExceptionGroup) as error:
            await _abort(method, context, error)
    except grpc.aio.InternalError as error:
        # A read or write failed because the connection is gone. That is the caller's
        # way to cancel, and not worth the error that gRPC would log.
        raise asyncio.CancelledError from error.__cause__


async def _abort(method: str, context: Context, error: BaseException) -> NoReturn:
    answer = _service_error(method, context, error)
    if answer is None:
        _log.error("unhandled error", exc_info=error)
        answer = errors.InternalError(logging.request_id())
    message = status.from_error(answer)
    packed = rpc_status.to_status(message)
    metadata = packed.trailing_metadata
    if answer.retry_delay_s is not None:
        metadata += ((PUSHBACK_KEY, str(round(answer.retry_delay_s * 1000))),)
    elif message.code in _RETRIED_CODES:
        metadata += ((PUSHBACK_KEY, NEVER_RETRY),)
    try:
        await context.abort(packed.code, packed.details, metadata)
    except BaseException as ended:  # also a caller that leaves before the answer is sent
        raise ended from answer  # see `handlers.outcome`


def _service_error(
    method: str, context: Context, error: BaseException
) -> errors.ServiceError | None:
    """Finds the error meant for the caller, and None when there is none."""
    if isinstance(error, errors.ServiceError):
        return error
    if isinstance(error, BaseExceptionGroup):  # of a task group in a servicer
        found = (_service_error(method, context, inner) for inner in error.exceptions)
        return next((inner for inner in found if inner is not None), None)
    # A method that is only in the generated base class sets the code and raises.
    # Without the code the error comes from elsewhere, a library for example.
    base_method = context.code() is grpc.StatusCode.UNIMPLEMENTED
    if isinstance(error, NotImplementedError) and base_method:
        return errors.NotImplemented_(method)
    return None
