"""What is wrong is refused, here or by a service, in the words of the caller."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from lockstep_client._transport.keywords import in_keywords, keyword
from tests.integration.node.package import needs_node, probe
from tests.services import Services
from tests.unit.client.test_keywords import CALLS, paths

pytestmark = needs_node


@pytest.fixture(scope="module")
def refusals(built: Path, services: Services) -> dict[str, Any]:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # it listens and answers nobody
        services.model.cancelling("GenerateStream"),  # the stream that the probe leaves
    ):
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        return probe("refusals", built, **services.environment, SILENT=address)


def test_names_that_do_not_exist_are_refused_with_the_one_that_was_meant(refusals):
    meant = {
        "generate": "'max_new_tokens' is not an option of this call. Did you mean 'maxNewTokens'?",
        "stream": "'maxNewToken' is not an option of this call. Did you mean 'maxNewTokens'?",
        "encode": "'paddding' is not an option of this call. Did you mean 'padding'?",
        "client": "'tokeniser' is not an option of a client. Did you mean 'tokenizer'?",
        "nothingClose": "'streamer' is not an option of this call.",
        "elsewhere": "'stop' is not taken here: give `stopStrings`, or `stopTokenIds`.",
        "harmless": "'pad_token_id' is not taken here: rows run without padding.",
        "nested": "'bia' is not a field of greenListWatermark. Did you mean 'bias'?",
        "selection": "'top_k' is not a field of selection. Did you mean 'topK'?",
    }
    assert {call: failure["message"] for call, failure in refusals["names"].items()} == meant
    assert {failure["name"] for failure in refusals["names"].values()} == {"TypeError"}


def test_values_that_do_not_fit_are_refused_with_what_would(refusals):
    expected = {
        "errors": "errors is one of 'raise', 'return', not 'ignore'.",
        "choice": "seedMode is one of 'counter', 'torch', not 'torc'.",
        "number": "temperature takes a number, not '0.5'.",
        "boolean": "doSample takes a boolean, not 1.",
        "seed": "seed takes whole numbers beyond 2^53 as bigints, not 1152921504606847000.",
        "row": "prompts[0] takes rows of token ids, for example [[1, 2], [3]], not 5.",
        "continuation": "continuations[1] takes whole numbers, not 1.5.",
        "text": "prompts takes a batch, or rows of token ids, for example [[1, 2], [3]].",
        "list": "texts[1] takes a string, not 5.",
        "ttl": "keepSession.ttlS takes a number, not '1'.",
        "role": "Every message needs a role.",
        "several": "model.generate returns several sequences.",
        "truncation": "truncation needs maxLength.",
        "ragged": "encode with padding: 'longest', or pad them.",
        "address": "model is an address without http://",
        "port": "model needs a port, for example localhost:50051.",
        "timeout": "timeoutMs takes milliseconds from 0 on, or null for no limit, not '5'.",
        "timeoutOfClient": "streamTimeoutMs takes milliseconds from 0 on",
        "retries": "retries takes whole numbers from 0 on, not -1.",
        "follow": "follow takes true, false or a list of hosts, not 'all'.",
        "certificate": "tls takes certificate and key together, or neither of them.",
    }
    assert refusals["values"].keys() == expected.keys()
    for value, sentence in expected.items():
        assert refusals["values"][value]["name"] == "TypeError"
        assert sentence in refusals["values"][value]["message"]


def test_ids_that_are_no_whole_numbers_are_refused(refusals):
    assert len(refusals["noIds"]) == 41
    assert "eosTokenId takes" in refusals["noIds"][3]["message"]
    for refused in refusals["noIds"]:
        assert refused["name"] == "TypeError"
        assert "whole numbers" in refused["message"]


def test_a_refused_call_says_why_for_programs_and_for_people(refusals):
    refused = refusals["refused"]
    assert refused["unknownId"]["name"] == "ServiceError"
    assert refused["unknownId"]["code"] == "INVALID_ARGUMENT"
    assert refused["unknownId"]["reason"] == "TOKEN_ID_OUT_OF_RANGE"
    assert refused["unknownId"]["metadata"]["tokenId"] == "99999"
    assert "99999" in refused["unknownId"]["message"]
    assert refused["empty"]["reason"] == refused["emptyStreamed"]["reason"] == "INVALID_FIELD"
    fields = [violation["field"] for violation in refused["fields"]["violations"]]
    assert fields == ["temperature", "topP"]
    assert refused["fields"]["message"].startswith("temperature: must be in ")
    assert (
        "for greedy decoding set doSample: false instead of 0; topP: "
        in refused["fields"]["message"]
    )
    assert refused["unmet"]["message"] == (
        "temperature: has no effect without doSample: true; leave it out, or set lenient: true"
    )
    assert refused["argument"]["violations"][0]["field"] == "processors[0].top_k"
    assert refused["unknownId"]["message"].startswith("rows[0]: id 99999 at index 0")
    assert refused["session"]["reason"] == "SESSION_NOT_FOUND"


def test_an_error_names_the_text_the_messages_or_the_entry_of_a_list_that_was_given(refusals):
    empty = "must have at least one token"
    expected = {
        "text": f"prompt: {empty}",
        "entry": f"prompts[1]: {empty}",
        "long": "prompt: has 3000 prompt tokens",
        "streamed": f"prompt: {empty}",
        "distribution": f"prompt: {empty}",
        "candidates": "candidates: must be in [1, 320]",
        "perplexity": f"text: {empty}",
        "perplexities": f"texts[1]: {empty}",
        "negative": "negativePrompt: must have at most 262144 bytes",
        "role": "prompt[0].role: must be ",
        "conversation": "conversations[1]: must not be empty",
        "encoded": "texts[1]: must have at most 262144 bytes",
        "counted": "texts: must have at most 262144 bytes",
        "row": "rows: id 1000000 at index 0",
        "none": "The processors exclude every token at position 1.",
    }
    assert refusals["named"].keys() == expected.keys()
    for call, sentence in expected.items():
        assert refusals["named"][call]["message"].startswith(sentence)


def test_a_service_that_is_away_has_a_sentence_of_its_own(refusals):
    for failure in refusals["nobody"].values():
        assert (failure["name"], failure["code"]) == ("ConnectionFailed", "UNAVAILABLE")
        assert "Cannot reach the " in failure["message"]
    for call in ("refused", "streamed", "duplex", "ready"):
        message = refusals["nobody"][call]["message"]
        assert "service at localhost:1: no" in message  # `nothing listens` or `nobody answers`
        assert message.endswith("Is the service running?")
    assert "it does not speak TLS" in refusals["nobody"]["tls"]["message"]


def test_swapped_addresses_are_told_from_a_method_that_is_missing(refusals):
    assert refusals["swapped"]["name"] == "ProtocolError"
    expected = "is a tokenizer service; the model service was expected there."
    assert expected in refusals["swapped"]["message"]


def test_every_kind_of_call_ends_at_its_limit_where_nobody_answers(refusals):
    assert [failure["name"] for failure in refusals["silent"]] == ["DeadlineExceeded"] * 4


def test_calls_end_when_they_are_left_aborted_or_their_client_is_closed(refusals):
    assert refusals["left"]["result"]["name"] == "ProtocolError"
    assert refusals["aborted"]["message"] == "enough"
    assert [failure["name"] for failure in refusals["closed"]] == ["Cancelled"] * 3


def test_a_token_is_not_sent_in_plain_text_unless_that_is_allowed(refusals):
    assert refusals["token"]["name"] == "TypeError"
    assert "tokenInPlainText" in refusals["token"]["message"]


def _camel(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda found: found[1].upper(), text)


def test_every_field_of_a_request_is_called_as_in_the_python_client(built: Path):
    """In camelCase, whether the path is in camelCase too, as what is refused here, or not."""
    every = [path for _, request in CALLS for path in paths(request.DESCRIPTOR)]
    given = json.dumps({"paths": [*every, *map(_camel, every)], "texts": []})
    said = probe("keywords", built, GIVEN=given)["paths"]
    assert len(every) > 300
    assert said == [_camel(keyword(path)) for path in every] * 2


def test_what_a_service_advises_is_said_as_it_is_done_in_typescript(built: Path):
    condition = "has no effect without do_sample = true; leave it out, or set lenient"
    advice = [
        (condition, "has no effect without doSample: true; leave it out, or set lenient: true"),
        ("names what ListLogitsProcessors returns", "names what ListLogitsProcessors returns"),
        ("a name that ListLogitsProcessors returns", "a name in `model.logitsProcessors()`"),
        ("use its StepStream with accept_chunks.", "use its `stepStream`."),
        ("needs top_k and logits to be set", "needs topK and logits to be set"),
        ("Token 'max_new_tokens' exists", "Token 'max_new_tokens' exists"),
        ("not a_name_of_a_caller", "not a_name_of_a_caller"),
    ]
    texts, expected = map(list, zip(*advice, strict=True))
    given = json.dumps({"paths": [], "texts": texts})
    assert probe("keywords", built, GIVEN=given)["texts"] == expected
    assert in_keywords(condition).endswith("set lenient=True")  # the same table
