import re

import pytest
from google.protobuf import json_format
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from lockstep.v1.error_reason_pb2 import ErrorReason

from docs import generate
from rpc import errors, status
from tests.unit.rpc.error_samples import SAMPLES

REASONS = {reason.name: reason for reason in generate.reasons()}

every_error = pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)


def detail(message, kind):
    unpacked = kind()
    return next((unpacked for each in message.details if each.Unpack(unpacked)), None)


def test_every_class_has_one_row_and_one_sample():
    classes = set(errors.ServiceError.__subclasses__())
    assert set(status.TABLE) == classes
    assert {type(sample) for sample in SAMPLES} == classes


def test_every_reason_of_the_schema_has_one_class_and_back():
    declared = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118
    used = [reason for _, reason in status.TABLE.values()]
    assert sorted(used) == sorted(declared - {"UNSPECIFIED"})


@every_error
def test_a_status_keeps_the_contract_written_in_the_schema(error):
    answer = status.from_error(error)
    info = detail(answer, ErrorInfo)
    contract = REASONS[info.reason]
    assert code_pb2.Code.Name(answer.code) == contract.code
    assert set(info.metadata) == set(contract.metadata)
    assert (detail(answer, RetryInfo) is not None) == contract.retryable
    assert info.domain == "lockstep.dev"


@every_error
def test_the_in_band_form_says_the_same(error):
    answer, item = status.from_error(error), status.item_error(error)
    info = detail(answer, ErrorInfo)
    assert (item.code, item.message) == (answer.code, answer.message)
    assert ErrorReason.Name(item.reason) == f"ERROR_REASON_{info.reason}"
    assert item.metadata == info.metadata


@every_error
def test_every_number_in_a_message_is_in_the_metadata_too(error):
    if not isinstance(error, errors.InvalidField):  # its description is the caller's to word
        assert set(re.findall(r"\d+", str(error))) <= set(error.metadata.values())


def test_a_retry_delay_keeps_its_milliseconds():
    answer = status.from_error(errors.Overloaded("sequences", 1, retry_delay_s=1.25))
    assert json_format.MessageToDict(detail(answer, RetryInfo)) == {"retryDelay": "1.250s"}


def test_every_violation_becomes_a_field_violation():
    error = errors.InvalidField.of(
        [errors.FieldViolation("a", "too small"), errors.FieldViolation("b", "not a number")]
    )
    found = detail(status.from_error(error), BadRequest).field_violations
    assert [(each.field, each.description) for each in found] == [
        ("a", "too small"),
        ("b", "not a number"),
    ]


def test_the_largest_status_fits_the_metadata_a_client_reads():
    worst = "\N{GRINNING FACE}" * 10_000
    error = errors.InvalidField.of([errors.FieldViolation(worst, worst)] * 1000)
    answer = status.from_error(error)
    encoded = len(answer.SerializeToString()) * 4 / 3 + len(answer.message.encode()) * 3
    assert encoded < 8 * 1024
    assert detail(answer, BadRequest).field_violations[0].field.endswith("...")


def test_text_that_is_not_unicode_still_makes_a_status():
    answer = status.from_error(errors.InvalidField("\ud800", "is half a character"))
    assert answer.message == "?: is half a character"


def test_a_subclass_answers_with_the_row_of_its_base():
    class EmptyPrompt(errors.InvalidField):
        pass

    answer = status.from_error(EmptyPrompt("prompts", "is empty"))
    assert detail(answer, ErrorInfo).reason == "INVALID_FIELD"
    assert detail(answer, BadRequest) is not None


def test_names_of_a_request_come_back_without_characters_that_control_a_terminal():
    hostile = "a\n\x1b[31m\u202e\u00e9"
    for message in (
        detail(status.from_error(errors.SessionNotFound(hostile)), ErrorInfo),
        status.item_error(errors.SessionNotFound(hostile)),
    ):
        assert message.metadata["sessionId"] == "a\\n\\x1b[31m\\u202eé"
