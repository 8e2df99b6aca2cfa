"""How many drafts are made, by how often earlier ones were right."""

import pytest

from model_service.engine.sequences.acceptance import Acceptance

COST = 0.03


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_as_many_drafts_are_made_as_give_the_most_tokens_for_their_time(rate):
    acceptance = Acceptance(0.5, COST)
    for index in range(300):
        acceptance.note(int((index + 1) * rate) > int(index * rate))
    seen = acceptance.rate

    def speed(count: int) -> float:
        return sum(seen**i for i in range(count + 1)) / (1.0 + COST * count)

    count = acceptance.worthwhile(32)
    assert speed(count) >= max(speed(other) for other in range(1, 33)) - 1e-9


def test_drafts_that_are_never_right_are_made_now_and_then():
    acceptance, made = Acceptance(0.5, COST), []
    for _ in range(400):
        made.append(acceptance.worthwhile(8))
        if made[-1]:
            acceptance.note(False)
    assert 5 < sum(map(bool, made[-200:])) < 40
