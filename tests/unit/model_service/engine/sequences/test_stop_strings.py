"""Texts that end a sequence: on spellings aa, ab, ac and so on, of ids that count up."""

import pytest

from model_service.engine.sequences.stop_strings import completed
from model_service.protocol import SessionAnswer
from tests.unit.model_service.engine.counting import SPELLINGS, CountingEngine, finish, tokens

TABLE = dict(enumerate(SPELLINGS))


def ended_by(*stop_strings: str, prompt=(4,)):
    """Counts on from a prompt: its tokens and its end."""
    engine = CountingEngine()
    engine.generate(1, list(prompt), new=6, config={"stop_strings": stop_strings})
    events = engine.run()
    return tokens(events, 1), finish(events, 1)


@pytest.mark.parametrize(
    ("stop_string", "expected"),
    [("ag", [5, 6]), ("ga", [5, 6, 7]), ("afagah", [5, 6, 7]), ("f", [5])],
    ids=["a token", "across tokens", "many tokens", "inside of a token"],
)
def test_a_sequence_ends_with_the_token_that_completes_a_stop_string(stop_string, expected):
    ids, end = ended_by(stop_string)
    assert ids == expected
    assert (end.reason, end.stop_string) == ("stop_string", stop_string)


def test_bytes_of_the_prompt_do_not_count():
    ids, end = ended_by("aeaf", prompt=(3, 4))
    assert len(ids) == 6
    assert (end.reason, end.stop_string) == ("max_new_tokens", "")


def test_a_stop_string_wins_over_the_length_limit():
    assert ended_by("ak")[1].reason == "stop_string"


def test_of_several_the_one_that_ends_first_is_named():
    assert ended_by("agah", "ga")[1].stop_string == "ga"
    assert ended_by("gah", "h", "ah")[1].stop_string == "gah", "all end here: the first in order"


def test_a_text_that_ended_in_an_earlier_token_does_not_count_again():
    table = {1: b"stop", 2: b"st", 3: b"op!"}
    assert completed(["stop"], 2, [1], table) is None
    assert completed(["stop"], 3, [2, 1], table) == "stop"


def test_half_characters_of_two_tokens_make_a_stop_string():
    table = {1: b"a\xc3", 2: b"\xa9b"}
    assert completed(["é"], 1, [], table) is None
    assert completed(["é"], 2, [1], table) == "é"


def test_ids_that_stand_for_nothing_are_passed_over():
    assert completed(["ab"], 2, [9, 1], {1: b"a", 2: b"b"}) == "ab"
    assert completed(["ab"], 9, [2, 1], {1: b"a", 2: b"b"}) is None


def test_a_row_of_a_session_says_that_a_sampled_token_completes_one():
    engine = CountingEngine()
    engine.open(1, [4], config={"stop_strings": ("ga",)})
    engine.run()
    reasons = []
    for request_id in (2, 3):
        engine.step_session(request_id, [4 + request_id - 1], sample=True)
        (answer,) = [event for event in engine.run() if isinstance(event, SessionAnswer)]
        reasons.append(answer.rows[0].finish_reason)
    assert reasons == [None, "stop_string"]
