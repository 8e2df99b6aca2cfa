import grpc
import pytest

from lockstep_client import ConnectionFailed, DeadlineExceeded, exceptions
from lockstep_client._transport.patience import PAUSE_S, Patience

AWAY = ConnectionFailed("away", code=grpc.StatusCode.UNAVAILABLE)


def test_a_service_that_is_away_is_asked_again_after_a_pause():
    assert Patience(10.0).pause_s(AWAY) == PAUSE_S


def test_the_pause_is_the_one_that_a_service_states():
    loading = exceptions.Loading("text", code=grpc.StatusCode.UNAVAILABLE, retry_delay_s=1.5)
    assert Patience(10.0).pause_s(loading) == 1.5


def test_the_whole_time_is_waited_and_no_longer():
    assert 0 < Patience(PAUSE_S / 2).pause_s(AWAY) <= PAUSE_S / 2
    with pytest.raises(ConnectionFailed):
        Patience(0.0).pause_s(AWAY)


def test_waiting_does_not_help_against_a_wrong_request():
    refused = exceptions.FeatureNotImplemented("text", code=grpc.StatusCode.UNIMPLEMENTED)
    with pytest.raises(exceptions.FeatureNotImplemented):
        Patience(10.0).pause_s(refused)


def test_why_an_earlier_attempt_failed_says_more_than_that_time_is_up():
    late = DeadlineExceeded("late", code=grpc.StatusCode.DEADLINE_EXCEEDED)
    patience = Patience(10.0)
    with pytest.raises(DeadlineExceeded):
        patience.pause_s(late)
    patience.pause_s(AWAY)
    with pytest.raises(ConnectionFailed):
        patience.pause_s(late)
