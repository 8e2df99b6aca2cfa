import importlib
import time
from contextlib import suppress
from queue import SimpleQueue

import grpc
import pytest
from lockstep.v1 import logits_session_service_pb2, tokenizer_service_pb2

from lockstep_client import exceptions
from lockstep_client._transport import status
from lockstep_client._transport.retries import Attempts, Throttle, is_idempotent
from lockstep_client._transport.sent_requests import SentRequests
from lockstep_client._transport.service_config import IDEMPOTENT_METHODS
from lockstep_client.exceptions import (
    ConnectionFailed,
    DeadlineExceeded,
    Draining,
    LockstepError,
    Overloaded,
)

SERVICE_MODULES = (
    "tokenizer_service",
    "vocabulary_admin_service",
    "model_service",
    "logits_session_service",
    "model_info_service",
)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
AWAY = ConnectionFailed("Nobody answers.", code=UNAVAILABLE)


def _draining(retry_delay_s: float | None = 1.0) -> Draining:
    return Draining("Shutting down.", code=UNAVAILABLE, retry_delay_s=retry_delay_s)


def _overloaded(retry_delay_s: float = 1.0) -> Overloaded:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = {"resource": "sequences", "limit": "96"}
    return Overloaded("Full.", code=code, retry_delay_s=retry_delay_s, metadata=metadata)


def _attempts(
    *, retries: int = 3, idempotent: bool = True, timeout_s: float | None = 60.0
) -> Attempts:
    return Attempts(Throttle(), retries=retries, idempotent=idempotent, timeout_s=timeout_s)


def test_methods_that_may_be_repeated_exist():
    methods = {
        method.full_name
        for module in SERVICE_MODULES
        for service in importlib.import_module(
            f"lockstep.v1.{module}_pb2"
        ).DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods > IDEMPOTENT_METHODS


def test_a_request_tells_whether_its_method_may_be_repeated():
    assert is_idempotent(tokenizer_service_pb2.EncodeRequest())
    for name in ("OpenSession", "Step", "StepStream", "Fork", "SelectRows", "CloseSession"):
        assert not is_idempotent(getattr(logits_session_service_pb2, f"{name}Request")())


def test_every_request_type_is_that_of_one_method():
    names = [
        method.input_type.full_name
        for module in SERVICE_MODULES
        for service in importlib.import_module(
            f"lockstep.v1.{module}_pb2"
        ).DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert len(names) == len(set(names))


def test_backoff_grows_from_attempt_to_attempt_until_there_are_four():
    attempts = _attempts()
    pauses = [attempts.pause_s(AWAY) for _ in range(3)]
    for pause_s, expected_s in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert 0.8 * expected_s <= pause_s <= 1.2 * expected_s
    with pytest.raises(ConnectionFailed):
        attempts.pause_s(AWAY)


@pytest.mark.parametrize("error", [_draining(0.75), _overloaded(0.75)], ids=["away", "overloaded"])
def test_no_attempt_comes_before_the_time_that_a_service_states_nor_all_at_once(error):
    pauses = [_attempts().pause_s(error) for _ in range(20)]
    assert all(0.75 <= pause_s <= 0.9 for pause_s in pauses)
    assert len(set(pauses)) > 1


def test_a_backoff_that_has_grown_beyond_the_stated_time_is_waited_for():
    attempts = _attempts()
    assert [attempts.pause_s(_overloaded(0.1)) for _ in range(3)][-1] >= 0.3


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_the_client_says_how_often_a_call_is_repeated(retries):
    attempts = _attempts(retries=retries)
    for _ in range(retries):
        attempts.pause_s(_overloaded())
    with pytest.raises(Overloaded):
        attempts.pause_s(_overloaded())


@pytest.mark.parametrize(
    "error",
    [
        _draining(None),
        exceptions.InvalidField("Wrong.", code=grpc.StatusCode.INVALID_ARGUMENT),
        status.overdue("the service"),
        status.closed("the service"),
    ],
    ids=["unavailable for good", "wrong", "overdue", "closed"],
)
def test_what_does_not_pass_is_not_repeated(error: LockstepError):
    with pytest.raises(type(error)):
        _attempts().pause_s(error)


@pytest.mark.parametrize("error", [AWAY, _draining()], ids=["away", "draining"])
def test_a_call_that_may_have_changed_something_is_made_once(error):
    with pytest.raises(type(error)):
        _attempts(idempotent=False).pause_s(error)


def test_a_call_that_was_refused_before_it_began_is_repeated_whatever_it_changes():
    assert _attempts(idempotent=False).pause_s(_overloaded()) >= 1.0


def test_a_pause_that_does_not_fit_the_timeout_is_not_made():
    began = time.monotonic()
    with pytest.raises(Draining):
        _attempts(timeout_s=0.9).pause_s(_draining(1.0))
    assert time.monotonic() - began < 0.5


def test_a_deadline_that_a_later_attempt_meets_does_not_hide_why_the_first_failed():
    attempts = _attempts()
    attempts.pause_s(_draining())
    with pytest.raises(Draining):
        attempts.pause_s(status.overdue("the service"))
    with pytest.raises(DeadlineExceeded):
        _attempts().pause_s(status.overdue("the service"))


def test_attempts_share_one_timeout():
    attempts = _attempts(timeout_s=0.5)
    first = attempts.timeout_s
    time.sleep(0.05)
    assert first is not None
    assert 0 < attempts.timeout_s <= first - 0.05
    assert _attempts(timeout_s=None).timeout_s is None


def test_repetition_ends_while_most_calls_fail_and_begins_again_when_they_do_not():
    throttle = Throttle()

    def repeated() -> bool:
        try:
            Attempts(throttle, retries=3, idempotent=True, timeout_s=None).pause_s(AWAY)
        except ConnectionFailed:
            return False
        return True

    assert [repeated() for _ in range(6)] == [True] * 4 + [False] * 2
    for _ in range(100):
        throttle.succeed()
    assert repeated()


def test_a_service_that_states_a_time_paces_its_callers_itself():
    throttle = Throttle()
    for _ in range(50):
        Attempts(throttle, retries=3, idempotent=True, timeout_s=None).pause_s(_overloaded())


def _attempts_of_calls(throttle: Throttle, num_calls: int, error: LockstepError) -> int:
    """Returns how many attempts calls make that all fail."""
    num_attempts = 0
    for _ in range(num_calls):
        attempts = Attempts(throttle, retries=3, idempotent=True, timeout_s=None)
        try:
            while True:
                num_attempts += 1
                attempts.pause_s(error)
        except LockstepError:
            pass
    return num_attempts


@pytest.mark.parametrize(
    "error", [_draining(), _overloaded(), AWAY], ids=["draining", "full", "away"]
)
def test_calls_of_a_service_that_refuses_everything_soon_make_one_attempt_each(error):
    assert _attempts_of_calls(Throttle(), 100, error) < 110


def test_what_a_service_that_refuses_everything_has_refused_is_not_asked_again_at_once():
    throttle = Throttle()
    sent = 0
    for _ in range(1000):
        attempts = Attempts(throttle, retries=3, idempotent=True, timeout_s=None)
        with suppress(Draining):
            while True:
                try:
                    with throttle.attempt("/Generate"):
                        sent += 1
                        raise _draining(60.0)
                except Draining as error:
                    attempts.pause_s(error)
    assert sent < 20
    with throttle.attempt("/GetLoad"):  # of others it has said nothing
        pass


def test_callers_that_are_let_in_when_their_turn_comes_are_not_throttled():
    throttle = Throttle()
    for _ in range(100):
        attempts = Attempts(throttle, retries=3, idempotent=True, timeout_s=None)
        attempts.pause_s(_overloaded())
        attempts.succeed()


@pytest.mark.parametrize("error", [_draining(), AWAY], ids=["draining", "away"])
def test_one_call_may_make_all_attempts_that_the_client_was_told(error):
    attempts = Attempts(Throttle(30), retries=30, idempotent=True, timeout_s=None)
    for _ in range(30):
        attempts.pause_s(error)
    with pytest.raises(type(error)):
        attempts.pause_s(error)


def test_what_a_call_waits_for_by_itself_does_not_end_repetition():
    throttle = Throttle()
    busy = exceptions.SessionBusy("In use.", code=grpc.StatusCode.ABORTED, retry_delay_s=0.1)
    assert _attempts_of_calls(throttle, 100, busy) == 400


def test_a_call_that_its_connection_has_no_room_for_is_not_a_service_that_is_away():
    message = "Stream removed (Received RST_STREAM with error code 7 (RST_STREAM))"
    error = status.from_status(UNAVAILABLE, message, (), "the model service at localhost:1")
    assert type(error) is Overloaded
    assert error.retry_delay_s


def test_requests_of_a_stream_both_ways_are_sent_again_until_it_answers():
    decode = tokenizer_service_pb2.DecodeStreamRequest
    requests = SentRequests(SimpleQueue)
    first, second, third = decode(ids=[1]), decode(ids=[2]), decode(ids=[3])
    requests.put_nowait(first)
    assert requests.are_repeatable
    before = requests.again()
    assert before.get_nowait() is first
    requests.put_nowait(second)
    again = requests.again()
    assert [before.get_nowait(), before.get_nowait()] == [second, None]  # it is told to end
    requests.forget()
    requests.put_nowait(third)
    assert [again.get_nowait() for _ in range(3)] == [first, second, third]


def test_steps_of_a_stream_are_not_sent_again_by_themselves():
    requests = SentRequests(SimpleQueue)
    requests.put_nowait(logits_session_service_pb2.StepStreamRequest())
    assert not requests.are_repeatable


GOAWAY = "GOAWAY received; Error code: 0; Debug Text: max_age"


@pytest.mark.parametrize("message", [GOAWAY, f"Stream removed ({GOAWAY})"])
def test_a_call_that_the_service_has_not_looked_at_is_repeated_whatever_it_changes(message):
    error = status.from_status(UNAVAILABLE, message, (), "the model service at localhost:1")
    assert type(error) is ConnectionFailed
    assert _attempts(idempotent=False).pause_s(error) > 0


@pytest.mark.parametrize("breaking", ["Socket closed", "recvmsg:Connection reset by peer (104)"])
def test_a_call_whose_connection_breaks_after_its_planned_end_may_have_been_looked_at(breaking):
    message = f"Stream removed ({breaking} ({GOAWAY}))"
    error = status.from_status(UNAVAILABLE, message, (), "the model service at localhost:1")
    with pytest.raises(ConnectionFailed):
        _attempts(idempotent=False).pause_s(error)
