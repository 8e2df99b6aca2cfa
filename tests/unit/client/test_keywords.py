"""Fields of requests in the words of a caller: every field has a keyword of its method."""

import inspect
import re
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor
from lockstep.v1 import (
    logits_session_service_pb2,
    model_service_pb2,
    tokenizer_service_pb2,
    vocabulary_admin_service_pb2,
)

from lockstep_client import Lockstep, Model, Session, Tokenizer, Vocabulary
from lockstep_client._transport.keywords import in_keywords, keyword
from lockstep_client._values import fields
from rpc import errors
from tests.unit.client.test_exceptions import _received

CALLS = [
    (Model.generate, model_service_pb2.GenerateRequest),
    (Model.score, model_service_pb2.ScoreRequest),
    (Model.compute_logits, model_service_pb2.ComputeLogitsRequest),
    (Model.open_session, logits_session_service_pb2.OpenSessionRequest),
    (Model.get_session, logits_session_service_pb2.GetSessionRequest),
    (Session.step, logits_session_service_pb2.StepRequest),
    (Session.truncate, logits_session_service_pb2.TruncateRequest),
    (Session.fork, logits_session_service_pb2.ForkRequest),
    (Session.select_rows, logits_session_service_pb2.SelectRowsRequest),
    (Session.rebind, logits_session_service_pb2.RebindSessionRequest),
    (Session.touch, logits_session_service_pb2.TouchSessionRequest),
    (Tokenizer.encode, tokenizer_service_pb2.EncodeRequest),
    (Tokenizer.decode, tokenizer_service_pb2.DecodeRequest),
    (Tokenizer.pad, tokenizer_service_pb2.PadRequest),
    (Tokenizer.count_tokens, tokenizer_service_pb2.CountTokensRequest),
    (Tokenizer.convert_tokens, tokenizer_service_pb2.ConvertTokensRequest),
    (Tokenizer.apply_chat_template, tokenizer_service_pb2.ApplyChatTemplateRequest),
    (Vocabulary.add_tokens, vocabulary_admin_service_pb2.AddTokensRequest),
    (Vocabulary.set_special_tokens, vocabulary_admin_service_pb2.SetSpecialTokensRequest),
]

# What no caller gives: the client does, or a message has it for other clients.
OURS = {
    "session_id",
    "expected_position",
    "origins",
    "count",
    "extra_json",
    "lengths",
    "padding_side",
    "pad_token_id",
}


def paths(message: Descriptor, before: str = "") -> Iterator[str]:
    """Yields the path of every field that is no message, and of every list."""
    for field in message.fields:
        path = f"{before}{field.name}"
        kind = field.message_type
        repeated = fields.is_repeated(field)
        if kind is None or kind.GetOptions().map_entry or not kind.full_name.startswith("lockstep"):
            yield path
        elif repeated:
            yield from (f"{path}[0]", *paths(kind, f"{path}[0]."))
        else:
            yield from (path, *paths(kind, f"{path}."))


@pytest.mark.parametrize(("method", "request_type"), CALLS, ids=lambda each: each.__name__)
def test_every_field_of_a_request_has_a_keyword_of_the_method(method, request_type):
    known = inspect.signature(method).parameters.keys() | {"options", "generation_config"}
    if method is Tokenizer.apply_chat_template:
        known |= {"messages"}  # the keyword of `generate`
    if method is Tokenizer.decode:
        known |= {"vocabulary"}  # of the batch
    missing = []
    for path in paths(request_type.DESCRIPTOR):
        head = re.split(r"[.\[]", keyword(path))[0]
        if head not in known and not OURS & set(re.findall(r"\w+", path)):
            missing.append((path, keyword(path)))
    assert missing == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("generation_config.temperature", "temperature"),
        ("generation_config.eos_token_ids", "eos_token_id"),
        ("generation_config.processors[0].name", "processors[0].name"),
        ("generation_config.processors[0].arguments_json.top_k", "processors[0].top_k"),
        ("prompt.token_batch.sequences[3]", "prompts[3]"),
        ("prompt.padded_batch.attention_mask", "attention_mask"),
        ("prompt", "prompts"),
        ("prompt_scores.top_k", "prompt_selection.top_k"),
        ("scores.top_k", "selection.top_k"),
        ("step.scores.top_k", "selection.top_k"),
        ("rows[2].ids", "rows[2]"),
        ("generation_config.negative_prompt.ids", "negative_prompt"),
        ("generation_config.stop_sequences[1].ids", "stop_sequences[1]"),
        ("items[5].text", "texts[5]"),
        ("items[5].text_pair", "texts[5].text_pair"),
        ("batch.token_batch.sequences[1]", "rows[1]"),
        ("options.padding.pad_token_id", "pad_token_id"),
        ("options.truncation.side", "truncation_side"),
        ("options.padding", "padding"),
        ("conversations[0].messages[2].role", "conversations[0][2].role"),
        ("conversations[4].messages", "conversations[4]"),
        ("tools_json", "tools"),
        ("keep_session.ttl", "keep_session.ttl_s"),
        ("ttl", "ttl_s"),
        ("tokens[1].token.content", "tokens[1]"),
        ("tokens[1].token.single_word", "tokens[1].single_word"),
        ("special_tokens[0].token_id", "roles"),
        ("scores_of_something_new", "scores_of_something_new"),
    ],
)
def test_a_path_is_said_as_its_keyword(path, said):
    assert keyword(path) == said


def test_an_error_names_keywords_and_says_what_to_do_in_python():
    condition = "has no effect without do_sample = true; leave it out, or set lenient"
    violations = [
        errors.FieldViolation("generation_config.temperature", condition),
        errors.FieldViolation("scores.top_k", "must be in [1, 320]"),
    ]
    received = _received(errors.InvalidField.of(violations))
    assert [violation.field for violation in received.violations] == [
        "temperature",
        "selection.top_k",
    ]
    assert str(received) == (
        "temperature: has no effect without do_sample=True; leave it out, or set lenient=True; "
        "selection.top_k: must be in [1, 320]"
    )
    out_of_range = errors.TokenIdOutOfRange(
        "prompt", row=3, index=1, token_id=900, vocabulary_size=320
    )
    assert str(_received(out_of_range)).startswith("prompts: id 900 at row 3, index 1 is not")


def test_methods_of_the_wire_are_said_as_those_of_the_client():
    text = "Ask for fewer ids, or use a session and its StepStream with accept_chunks."
    assert in_keywords(text) == "Ask for fewer ids, or use a session and its `step_stream`."


def test_help_shows_every_keyword_with_its_meaning():
    text = inspect.getdoc(Lockstep.generate)
    for name in ("temperature", "skip_special_tokens", "max_new_tokens"):
        assert re.search(rf"^ +{name}: \w+", text, re.MULTILINE)
    assert "Divisor of the logits. Range: [1e-10, 1e6]." in text
    parameters = inspect.signature(Lockstep.generate).parameters
    assert "options" not in parameters
    assert parameters["temperature"].default is None
    assert parameters["prompt"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert "stop_token_ids" in inspect.signature(Model.generate).parameters
    assert "concurrency" in inspect.signature(Tokenizer.decode).parameters
