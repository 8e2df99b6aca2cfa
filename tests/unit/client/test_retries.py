import importlib
import time

import grpc
import pytest
from lockstep.v1 import logits_session_service_pb2, tokenizer_service_pb2

from lockstep_client import exceptions
from lockstep_client._transport import retries, status
from lockstep_client._transport.retries import Attempts, Throttle, is_idempotent
from lockstep_client.exceptions import ConnectionFailed, DeadlineExceeded, Draining, LockstepError

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


def _attempts(*, repeatable: bool = True, timeout_s: float | None = 60.0) -> Attempts:
    return Attempts(Throttle(), repeatable=repeatable, timeout_s=timeout_s)


def test_methods_that_may_be_repeated_exist():
    methods = {
        service.full_name: set(service.methods_by_name)
        for module in SERVICE_MODULES
        for service in importlib.import_module(
            f"lockstep.v1.{module}_pb2"
        ).DESCRIPTOR.services_by_name.values()
    }
    for service, names in retries.IDEMPOTENT_METHODS.items():
        assert set(names) <= methods[service]


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


def test_the_time_that_a_service_states_takes_the_place_of_the_backoff():
    assert _attempts().pause_s(_draining(0.75)) == 0.75


@pytest.mark.parametrize(
    "error",
    [
        _draining(None),
        exceptions.Overloaded("Full.", code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_delay_s=0.5),
        exceptions.InvalidField("Wrong.", code=grpc.StatusCode.INVALID_ARGUMENT),
        status.overdue("the service"),
        status.closed("the service"),
    ],
    ids=["unavailable for good", "overloaded", "wrong", "overdue", "closed"],
)
def test_what_does_not_pass_is_not_repeated(error: LockstepError):
    with pytest.raises(type(error)):
        _attempts().pause_s(error)


def test_a_call_that_changes_something_is_made_once():
    with pytest.raises(ConnectionFailed):
        _attempts(repeatable=False).pause_s(AWAY)


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
            Attempts(throttle, repeatable=True, timeout_s=None).pause_s(AWAY)
        except ConnectionFailed:
            return False
        return True

    assert [repeated() for _ in range(6)] == [True] * 4 + [False] * 2
    for _ in range(100):
        throttle.succeed()
    assert repeated()
