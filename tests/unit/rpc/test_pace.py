"""How fast places become free, in given times."""

import pytest

from rpc.pace import Pace


def test_a_pace_that_was_not_measured_is_the_usual_one_until_that_takes_too_long():
    pace = Pace(4, usual_s=0.5)
    assert pace.per_second(0.0) == 8
    pace.taken(4, 0.0)
    assert pace.per_second(0.1) == 8
    assert pace.per_second(10.0) == 0.4


def test_places_that_become_free_one_by_one_are_counted():
    pace = Pace(4, usual_s=0.5)
    pace.taken(4, 0.0)
    for number in range(1, 50):
        pace.freed(1, 4, number / 10)
    assert pace.per_second(4.9) == pytest.approx(10)


@pytest.mark.parametrize("rounds", [1, 2, 3, 10])
def test_places_that_become_free_together_are_counted_too(rounds):
    pace = Pace(4, usual_s=0.5)
    pace.taken(4, 0.0)
    for number in range(1, rounds + 1):
        pace.freed(4, 4, number * 2.0)
    assert pace.per_second(rounds * 2.0) == pytest.approx(2)


def test_times_in_which_there_was_room_do_not_count():
    pace = Pace(4, usual_s=0.5)
    pace.taken(4, 0.0)
    pace.freed(1, 3, 1.0)
    pace.taken(3, 50.0)
    pace.taken(4, 100.0)
    pace.freed(1, 4, 101.0)
    assert pace.per_second(101.0) == pytest.approx(1)


def test_a_pace_of_before_is_not_believed_for_long():
    pace = Pace(4, usual_s=0.5)
    pace.taken(4, 0.0)
    for number in range(1, 13):
        pace.freed(1, 4, number / 10)
    assert pace.per_second(1.2) == pytest.approx(10)
    assert pace.per_second(120.0) == pytest.approx(0.1)
