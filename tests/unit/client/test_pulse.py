"""What a client believes about a service whose calls fail."""

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from lockstep_client._transport.endpoint import Endpoint
from lockstep_client._transport.pulse import Pulse
from lockstep_client.exceptions import ConnectionFailed, DeadlineExceeded, InvalidField, Loading


class Failed(grpc.RpcError):
    """A call that failed, as grpcio reports it."""

    def __init__(self, code: grpc.StatusCode, reason: str = "") -> None:
        self._code = code
        self._status = Status(code=code.value[0])
        if reason:
            detail = self._status.details.add()
            detail.Pack(ErrorInfo(reason=reason, domain="lockstep.dev"))

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "why"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        if not self._status.details:
            return ()
        return (("grpc-status-details-bin", self._status.SerializeToString()),)


@pytest.fixture
def pulse() -> Pulse:
    return Pulse(Endpoint("tokenizer", "localhost:1"))


def test_a_service_is_believed_to_be_there(pulse):
    pulse.check()
    assert pulse.question.endswith("TokenizerService/GetTokenizerInfo")


def test_a_service_that_nobody_reaches_is_away_until_it_answers(pulse):
    assert pulse.doubt(
        ConnectionFailed("Cannot reach it: refused", code=grpc.StatusCode.UNAVAILABLE)
    )
    with pytest.raises(ConnectionFailed, match="refused") as caught:
        pulse.check()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    pulse.hear(Failed(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(ConnectionFailed):
        pulse.check()
    pulse.hear(None)
    pulse.check()


def test_a_missed_deadline_alone_says_nothing_but_two_of_them_do(pulse):
    assert pulse.doubt(DeadlineExceeded("late"))
    pulse.check()
    pulse.hear(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))
    with pytest.raises(ConnectionFailed, match="stopped answering"):
        pulse.check()


def test_a_service_that_refuses_is_there(pulse):
    assert not pulse.doubt(InvalidField("no"))
    assert not pulse.doubt(Loading("not yet"))
    pulse.hear(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))
    pulse.hear(Failed(grpc.StatusCode.UNAVAILABLE, "LOADING"))
    pulse.check()
    pulse.hear(Failed(grpc.StatusCode.UNIMPLEMENTED))
    pulse.check()


def test_a_service_that_breaks_a_call_off_is_there(pulse):
    assert not pulse.doubt(ConnectionFailed("broken off", code=grpc.StatusCode.CANCELLED))
    pulse.hear(Failed(grpc.StatusCode.CANCELLED))
    pulse.check()


def test_a_service_that_ends_a_connection_in_time_is_there(pulse):
    unavailable = grpc.StatusCode.UNAVAILABLE
    assert not pulse.doubt(ConnectionFailed("too late", code=unavailable, retry_delay_s=0.0))
    pulse.check()
