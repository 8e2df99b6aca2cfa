"""Windows over rows that are longer than what the model sees at once."""

import pytest

from lockstep_client import PositionScores, ScoredSequence, exceptions
from lockstep_client._calls.windows import Windows
from lockstep_client._requests import model as requests


def windows_of(rows, continuations=None, **size) -> Windows:
    return Windows(requests.score(rows, continuations, {}), **{"size": 8, **size})


def cut(windows: Windows) -> list[tuple[list[int], list[int]]]:
    before = windows.request.prompt.token_batch.sequences
    scored = windows.request.continuations.sequences
    if not scored:  # the request as it was
        return [(list(row.ids[:1]), list(row.ids[1:])) for row in before]
    return [(list(a.ids), list(b.ids)) for a, b in zip(before, scored, strict=True)]


@pytest.mark.parametrize("length", [2, 7, 8, 9, 12, 13, 40, 41])
@pytest.mark.parametrize("stride", [None, 1, 3, 7])
def test_each_token_after_the_first_is_scored_once_after_enough_others(length, stride):
    row = list(range(length))
    pieces = cut(windows_of([row], stride=stride))
    assert [token for _, scored in pieces for token in scored] == row[1:]
    for before, scored in pieces:
        assert len(before) + len(scored) <= 8
        assert before == row[scored[0] - len(before) : scored[0]]
        assert len(before) >= min(8 - (stride or 4), scored[0])


def test_a_row_that_fits_a_window_is_scored_after_all_of_its_context():
    assert cut(windows_of([[1, 2, 3, 4, 5]], [[6, 7]])) == [([1, 2, 3, 4, 5], [6, 7])]


def test_a_context_is_not_scored_and_is_cut_where_it_is_too_long():
    pieces = cut(windows_of([list(range(20))], [[20, 21, 22, 23, 24, 25]]))
    assert pieces == [([16, 17, 18, 19], [20, 21, 22, 23]), ([20, 21, 22, 23], [24, 25])]


def test_the_windows_of_a_row_are_joined_and_know_its_number():
    windows = windows_of([[1, 2], list(range(12)), [3, 4]])
    assert list(windows.row_numbers) == [0, 1, 1, 2]
    scored = [
        ScoredSequence((PositionScores(position=len(before)),), -float(number), number != 1)
        for number, (before, _) in enumerate(cut(windows))
    ]
    joined = windows.joined(scored)
    assert [each.logits_logprob for each in joined] == [0.0, -3.0, -3.0]
    assert [each.greedy for each in joined] == [True, False, True]
    assert [position.position for position in joined[1].scores] == [1, 8]
    failed = exceptions.InternalError("broken")
    assert windows.joined([scored[0], scored[1], failed, scored[3]])[1] is failed


def test_rows_without_a_prompt_or_continuation_of_their_own_are_for_the_service_to_refuse():
    for continuations in ([[1]], [[1], [2], [3]]):
        windows = windows_of([list(range(20)), [4]], continuations)
        assert len(windows.request.continuations.sequences) == len(continuations)


def test_without_windows_a_request_is_as_it_is():
    windows = windows_of([[1, 2, 3]], size=None)
    assert not windows.request.HasField("continuations")
    assert windows.joined([None]) == [None]


@pytest.mark.parametrize(
    "wrong", [{"size": 1}, {"stride": 0}, {"stride": 8}, {"size": None, "stride": 2}]
)
def test_windows_that_leave_tokens_out_are_refused(wrong):
    with pytest.raises(exceptions.InvalidArgument, match=r"window|stride"):
        windows_of([[1, 2, 3]], **wrong)
