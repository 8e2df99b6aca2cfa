import re

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from lockstep.v1.error_reason_pb2 import ErrorReason, ItemError

from lockstep_client import exceptions
from lockstep_client._transport.status import BY_REASON, from_item_error, from_status
from rpc import errors
from rpc import status as server_status

PEER = "the model service at localhost:1"


def _received(error: errors.ServiceError) -> exceptions.LockstepError:
    """What a client sees of an error that a servicer raised."""
    status = server_status.from_error(error)
    return _from_wire(status)


def _from_wire(status: Status) -> exceptions.LockstepError:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailing = (
        ("x-other", "1"),
        ("grpc-status-details-bin", status.SerializeToString()),
    )
    return from_status(code, status.message, trailing, PEER)


def test_every_reason_of_the_schema_has_one_class_and_the_other_way_round():
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118
    assert BY_REASON.keys() == reasons - {"UNSPECIFIED"}


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    drawn = re.findall(r"[├└]── (\w+)", exceptions.__doc__ or "")
    classes = [
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type)
        and issubclass(value, exceptions.LockstepError)
        and value is not exceptions.LockstepError
    ]
    assert drawn == classes


def test_what_a_servicer_raises_arrives_as_the_class_of_the_same_reason():
    for raised, (_, reason) in server_status.TABLE.items():
        error = raised.__new__(raised)
        errors.ServiceError.__init__(error, "text", retry_delay_s=0.25, key="value")
        if isinstance(error, errors.InvalidField):
            error.violations = ()
        received = _received(error)
        assert type(received) is BY_REASON[reason]
        assert (str(received), received.reason) == ("text", reason)
        assert (received.metadata, received.retry_delay_s) == ({"key": "value"}, 0.25)


def test_every_violation_of_a_bad_request_arrives():
    violations = [errors.FieldViolation("a", "first"), errors.FieldViolation("b.c", "second")]
    received = _received(errors.InvalidField.of(violations))
    assert received.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [(v.field, v.description) for v in received.violations] == [
        ("a", "first"),
        ("b.c", "second"),
    ]


def test_an_error_that_never_goes_away_has_no_retry_delay():
    received = _received(errors.SessionNotFound("s-1"))
    assert received.retry_delay_s is None
    assert received.metadata == {"sessionId": "s-1"}


def test_a_reason_of_a_newer_server_is_a_service_error_that_names_it():
    received = _from_wire(_status(ErrorInfo(reason="SOMETHING_NEW", domain="lockstep.dev")))
    assert type(received) is exceptions.ServiceError
    assert received.reason == "SOMETHING_NEW"


def test_details_of_another_domain_are_not_taken_for_ours():
    received = _from_wire(_status(ErrorInfo(reason="LOADING", domain="proxy.example")))
    assert type(received) is exceptions.ConnectionFailed
    assert received.reason == ""


def test_broken_details_do_not_hide_the_status():
    trailing = [("grpc-status-details-bin", b"\xff\xff")]
    received = from_status(grpc.StatusCode.INTERNAL, "text", trailing, PEER)
    assert type(received) is exceptions.ProtocolError
    assert received.code is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, exceptions.ConnectionFailed),
        (grpc.StatusCode.DEADLINE_EXCEEDED, exceptions.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, exceptions.ConnectionFailed),
        (grpc.StatusCode.UNKNOWN, exceptions.ProtocolError),
        (grpc.StatusCode.UNIMPLEMENTED, exceptions.ProtocolError),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", None)),
)
def test_a_status_without_details_is_told_by_its_code(code, expected):
    received = from_status(code, "attempts: Connection refused", (), PEER)
    assert type(received) is expected
    assert PEER in str(received)
    assert received.reason == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:1: Connection refused",
            "nothing listens there (connection refused).",
        ),
        ("errors resolving x:1: [field:hostname lookup error:no luck]", "no luck"),
        ("failed to connect to all addresses: Destination Unreachable", "Destination Unreachable"),
        ("Socket closed", "Socket closed"),
    ],
)
def test_the_message_of_a_failed_connection_ends_with_what_happened(text, sentence):
    received = from_status(grpc.StatusCode.UNAVAILABLE, text, (), PEER)
    assert str(received).startswith(f"Cannot reach {PEER}: ")
    assert str(received).endswith(sentence)


def test_an_error_of_one_item_is_the_exception_that_a_whole_call_would_raise():
    item = server_status.item_error(errors.NoTokenLeft(row=1, position=7))
    received = from_item_error(item)
    assert type(received) is exceptions.NoTokenLeft
    assert received.code is grpc.StatusCode.FAILED_PRECONDITION
    assert received.metadata == {"row": "1", "position": "7"}


def test_an_item_error_with_a_reason_of_a_newer_server_is_still_an_exception():
    received = from_item_error(ItemError(code=3, reason=9999, message="text"))
    assert type(received) is exceptions.ServiceError
    assert received.reason == "UNKNOWN_9999"


def _status(info: ErrorInfo) -> Status:
    packed = Any()
    packed.Pack(info)
    return Status(code=14, message="text", details=[packed])
