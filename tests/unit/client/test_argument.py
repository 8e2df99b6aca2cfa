"""Errors of rows that a call is made of, in the words of what its caller gave."""

import re

import pytest

from lockstep_client import exceptions
from lockstep_client._calls.argument import SHOWN, Argument
from rpc import errors
from tests.unit.client.test_exceptions import _received
from tests.unit.rpc.error_samples import SAMPLES

EMPTY = errors.InvalidField("prompt.token_batch.sequences[2]", "row 2 must have at least one token")
NOTHING_TO_SCORE = errors.InvalidField("prompt", "row 2 has no token to score")
TOO_LARGE = errors.InvalidField("items[2].text", "must have at most 9 bytes")
UNKNOWN = errors.TokenIdOutOfRange("batch", row=2, index=7, token_id=9, vocabulary_size=8)
TOO_LONG = errors.ContextLengthExceeded(row=2, prompt_tokens=9, new_tokens=1, context_tokens=9)
NO_TOKEN = errors.NoTokenLeft(row=2, position=3)
ROLE = errors.InvalidField("conversations[2].messages[1].role", "must not be empty")
ROUND_TRIP = errors.InvalidField("check_round_trip", "needs short texts; row 2 has more")


def told(error: errors.ServiceError, argument: Argument) -> exceptions.LockstepError:
    with pytest.raises(exceptions.LockstepError) as raised, argument.named():
        raise _received(error)
    return raised.value


@pytest.mark.parametrize(
    ("error", "of_one", "of_several"),
    [
        (EMPTY, "prompt: must have at least one token", "prompt[2]: must have at least one token"),
        (NOTHING_TO_SCORE, "prompt: has no token to score", "prompt[2]: has no token to score"),
        (TOO_LARGE, "prompt: must have at most 9 bytes", "prompt[2]: must have at most 9 bytes"),
        (UNKNOWN, "prompt: id 9 at index 7 is not", "prompt[2]: id 9 at index 7 is not"),
        (TOO_LONG, "prompt: has 9 prompt tokens; with", "prompt[2]: has 9 prompt tokens; with"),
        (NO_TOKEN, "every token at position 3", "every token for prompt[2] at position 3"),
        (ROLE, "prompt[1].role: must not be empty", "prompt[2][1].role: must not be empty"),
        (ROUND_TRIP, "needs short texts; it has more", "needs short texts; prompt[2] has more"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_error_of_a_row_names_what_the_caller_gave(error, of_one, of_several):
    assert of_one in str(told(error, Argument("prompt")))
    assert of_several in str(told(error, Argument("prompt", is_list=True)))
    assert of_several in str(told(error, Argument("prompt", row=2)))


def test_an_entry_of_a_list_is_named_whichever_row_of_its_request_it_is():
    error = told(UNKNOWN, Argument("prompt", row=40))
    assert str(error).startswith("prompt[40]: id 9 at index 7")
    assert error.metadata["row"] == "40"


def test_the_violations_say_what_the_message_says():
    error = told(errors.InvalidField.of([*EMPTY.violations, *ROLE.violations]), Argument("text"))
    assert [each.field for each in error.violations] == ["text", "text[1].role"]
    assert str(error) == "text: must have at least one token; text[1].role: must not be empty"


def test_a_colon_within_a_sentence_is_none_behind_a_field():
    error = exceptions.NoTokenLeft("No token is left for row 0 at position 3. Applied were: top_k.")
    Argument("prompt").rename(error)
    assert str(error) == "No token is left at position 3. Applied were: top_k."


def test_what_was_named_within_is_named_anew():
    error = told(ROLE, Argument("conversations"))
    assert error.violations[0].field == "conversations[1].role"
    Argument("messages", row=4).rename(error)
    assert error.violations[0].field == "messages[4][1].role"
    assert str(error) == "messages[4][1].role: must not be empty"


def test_what_is_no_row_of_the_call_keeps_its_name():
    error = told(TOO_LARGE, Argument("negative_prompt"))
    Argument("prompt", row=4).rename(error)
    assert str(error) == "negative_prompt: must have at most 9 bytes"


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_no_error_speaks_of_a_row_to_whom_gave_none(error):
    assert not re.search(r"\brow \d", str(told(error, Argument("prompt"))), re.IGNORECASE)


@pytest.mark.parametrize("error", [EMPTY, UNKNOWN, TOO_LONG, NO_TOKEN, ROLE])
def test_a_keyword_for_other_fields_leaves_rows_as_they_are(error):
    assert str(told(error, Argument("candidates", fields=SHOWN))) == str(_received(error))


def test_fields_that_a_keyword_stands_for_are_called_by_it():
    shown = Argument("candidates", fields=SHOWN)
    top_k = errors.InvalidField("scores.top_k", "must be in [1, 320]")
    ids = errors.TokenIdOutOfRange(
        "scores.token_ids", row=None, index=7, token_id=9, vocabulary_size=8
    )
    assert str(told(top_k, shown)) == "candidates: must be in [1, 320]"
    assert str(told(ids, shown)).startswith("candidates: id 9 at index 7 is not")
