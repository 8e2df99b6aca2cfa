"""What results take from messages, by the names that both have."""

from typing import get_args, get_type_hints

import pytest
from lockstep.v1 import (
    generation_pb2,
    model_info_service_pb2,
    tokens_pb2,
    vocabulary_pb2,
)

import lockstep_client
from lockstep_client._results.vocabulary import AddedToken
from lockstep_client._values import batch, enums, new_token

RESULTS = [
    result
    for name in lockstep_client.__all__
    if hasattr(result := getattr(lockstep_client, name), "from_message")
    and "._results." in result.__module__
    and name != "LogitsProcessor"  # whose schema of arguments is JSON, and never empty
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.__name__)
def test_a_result_is_read_from_a_message_with_nothing_in_it(result):
    message = get_type_hints(result.from_message)["message"]
    assert isinstance(result.from_message(message()), result)


def test_what_is_not_set_is_none_and_zero_is_a_value():
    message = model_info_service_pb2.GetModelInfoResponse(bos_token_id=0)
    info = lockstep_client.ModelInfo.from_message(message)
    assert (info.bos_token_id, info.pad_token_id, info.eos_token_ids) == (0, None, [])
    assert (
        AddedToken.from_message(get_type_hints(AddedToken.from_message)["message"]()).effect is None
    )


def test_mappings_and_enumerations_are_plain_values_by_name():
    message = model_info_service_pb2.GetCapabilitiesResponse(
        methods={"b": 1, "a": 77}, determinism_level=generation_pb2.DETERMINISM_LEVEL_BITWISE
    )
    capabilities = lockstep_client.Capabilities.from_message(message)
    assert capabilities.determinism_level == "bitwise"
    assert list(capabilities.methods.items()) == [("a", "unknown_77"), ("b", "supported")]


@pytest.mark.parametrize(
    ("values", "type_"),
    [(new_token.ROLES, new_token.Role), (batch.SIDES, batch.PaddingSide)],
    ids=["roles", "sides"],
)
def test_the_values_of_a_keyword_are_those_of_its_type(values, type_):
    assert tuple(values) == get_args(type_)


def test_an_enumeration_has_names_without_prefix():
    assert enums.values(tokens_pb2.PaddingSide) == {"left": 1, "right": 2}
    assert enums.name(vocabulary_pb2.SpecialTokenRole.DESCRIPTOR, 2) == "eos"
