"""Explicit pipelines as requests write them: what is accepted, what is refused, what is echoed."""

import json

import jsonschema
import pytest
from google.protobuf.json_format import MessageToDict
from lockstep.v1.generation_pb2 import GenerationConfig as Message
from lockstep.v1.generation_pb2 import LogitsProcessorSpec
from lockstep.v1.scores_pb2 import TokenIdList

from model_service.front.checks import configuration
from model_service.front.checks.configuration import effective_message
from model_service.front.checks.pipeline import MAX_ARGUMENTS_BYTES
from model_service.front.checks.processor_catalog import BUILT_IN
from model_service.protocol.number import Number
from model_service.protocol.parameters import PARAMETERS, PROCESSORS, GenerationConfig
from model_service.protocol.processor_description import ProcessorDescription
from model_service.protocol.processor_order import applied_processors
from rpc.errors import InvalidField, TokenIdOutOfRange
from wire.violations import Violations

DEFAULTS = GenerationConfig(
    max_new_tokens=16,
    do_sample=True,
    temperature=0.5,
    top_k=20,
    repetition_penalty=1.2,
    eos_token_ids=(3, 4),
)
SIZE = 100
AT = "generation_config.processors"

EXAMPLES = {
    "sequence_bias": {"sequence_bias": [{"ids": [1, 2], "bias": -3.5}]},
    "encoder_repetition_penalty": {"penalty": 1.5},
    "repetition_penalty": {"penalty": 1.5},
    "presence_penalty": {"penalty": -100},
    "frequency_penalty": {"penalty": 0.5},
    "logit_bias": {"logit_bias": [{"token_id": 9, "bias": 100}]},
    "no_repeat_ngram_size": {"ngram_size": 2},
    "encoder_no_repeat_ngram_size": {"ngram_size": 2},
    "bad_words_ids": {"bad_words_ids": [[1], [2, 3]]},
    "min_length": {"min_length": 0},
    "min_new_tokens": {"min_new_tokens": 3},
    "allowed_token_ids": {"token_ids": [5, 6]},
    "forced_prefix": {"token_ids": [5, 6]},
    "forced_bos_token_id": {"token_id": 5},
    "forced_eos_token_ids": {"token_ids": [3]},
    "remove_invalid_values": {},
    "exponential_decay_length_penalty": {"start_index": 0, "decay_factor": 1.1},
    "suppress_tokens": {"token_ids": [7]},
    "begin_suppress_tokens": {"token_ids": [7]},
    "temperature": {"temperature": 0.7},
    "top_n_sigma": {"top_n_sigma": 1.5},
    "top_h": {"top_h": 0.5},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.1},
    "typical_p": {"typical_p": 0.9},
    "epsilon_cutoff": {"epsilon": 0.01},
    "eta_cutoff": {"epsilon": 0.01},
    "green_list_watermark": {},
    "synth_id_watermark": {"ngram_len": 5, "keys": [654, 400, 836]},
    "renormalize_logits": {},
}

CUSTOM = ProcessorDescription(
    "acme.windowed",
    "Looks at a window.",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "window": {"type": "integer", "minimum": 1, "default": 4},
                "weights": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}},
                "ends": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/End"},
                },
            },
            "required": ["weights"],
            "additionalProperties": False,
            "$defs": {
                "End": {
                    "type": "object",
                    "properties": {
                        "ids": {"type": "array", "items": {"type": "integer", "format": "token-id"}}
                    },
                }
            },
        }
    ),
)
CATALOG = {**BUILT_IN, CUSTOM.name: CUSTOM}


def spec(name, arguments=None) -> LogitsProcessorSpec:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return LogitsProcessorSpec(name=name, arguments_json=text)


def resolve(*specs, defaults=DEFAULTS, **fields):
    violations = Violations()
    resolved = configuration.resolve(
        Message(processors=specs, **fields),
        defaults,
        violations,
        vocabulary_size=SIZE,
        max_return_sequences=4,
        catalog=CATALOG,
    )
    violations.check()
    return resolved


def refusals(*specs, **fields) -> dict[str, str]:
    with pytest.raises(InvalidField) as caught:
        resolve(*specs, **fields)
    return {v.field: v.description for v in caught.value.violations}


def test_there_is_an_example_of_every_processor():
    assert EXAMPLES.keys() == BUILT_IN.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_processor_can_be_named_and_its_echo_gives_the_same_again(name):
    resolved = resolve(spec(name, EXAMPLES[name]))
    assert applied_processors(resolved.config) == [name]
    echoed = effective_message(resolved, seed=1)
    arguments = json.loads(echoed.processors[0].arguments_json)
    assert EXAMPLES[name].items() <= arguments.items()
    fields = MessageToDict(echoed, preserving_proto_field_name=True)
    assert "processors" in fields
    again = configuration.resolve(
        echoed, DEFAULTS, Violations(), vocabulary_size=SIZE, max_return_sequences=4
    )
    assert again.config == resolved.config


def test_processors_are_applied_in_the_order_given_and_nothing_else_is():
    names = list(EXAMPLES)[::-1]
    resolved = resolve(*(spec(name, EXAMPLES[name]) for name in names))
    assert applied_processors(resolved.config) == names
    assert resolved.config.temperature == 1.0, "the model's default is replaced as well"
    assert resolved.config.repetition_penalty == 1.0


@pytest.mark.parametrize(
    ("name", "arguments", "where", "said"),
    [
        ("temperature", {}, "", "must have temperature"),
        ("temperature", {"temperature": 0}, ".temperature", "at least 1e-10"),
        ("temperature", {"temperature": 1e6 + 1}, ".temperature", "at most 1000000"),
        ("temperature", {"temperature": "1"}, ".temperature", "type number"),
        ("temperature", {"temperature": True}, ".temperature", "type number"),
        ("temperature", {"temperature": None}, ".temperature", "type number"),
        ("temperature", '{"temperature": NaN}', "", "finite"),
        ("temperature", '{"temperature": 1e999}', "", "finite"),
        ("temperature", '{"temperature": 1, "temperature": 2}', "", "twice"),
        ("temperature", "[]", "", "type object"),
        ("temperature", "{", "", "JSON"),
        ("temperature", "[" * 60000, "", "JSON"),
        ("top_k", {"top_k": 1.0}, ".top_k", "type integer"),
        ("top_k", {"top_k": 2**31}, ".top_k", "at most"),
        ("top_k", '{"top_k": ' + "9" * 5000 + "}", "", "JSON"),
        ("top_k", {"top_k": 5, "k": 5}, "", "there are: top_k, min_tokens_to_keep"),
        ("top_p", {"top_p": -0.1}, ".top_p", "at least 0"),
        ("bad_words_ids", {"bad_words_ids": [[1], []]}, ".bad_words_ids[1]", "at least 1"),
        ("bad_words_ids", {"bad_words_ids": [[1, -1]]}, ".bad_words_ids[0][1]", "at least 0"),
        ("sequence_bias", {"sequence_bias": [{"ids": [1]}]}, ".sequence_bias[0]", "have bias"),
        (
            "sequence_bias",
            {"sequence_bias": [{"ids": [1], "bias": 1e300}]},
            ".sequence_bias[0].bias",
            "at most 1000000000",
        ),
        ("repetition_penalty", {"penalty": 1e-45}, ".penalty", "at least 1e-06"),
        ("logit_bias", {"logit_bias": [{"token_id": 1, "bias": 1}] * 2}, "", "twice"),
        ("renormalize_logits", {"on": True}, "", "there are: none"),
        (CUSTOM.name, {"weights": [1.0, 0]}, ".weights[1]", "above 0"),
        (CUSTOM.name, {"weights": [], "window": 1.0}, ".window", "type integer"),
        (CUSTOM.name, {}, "", "must have weights"),
    ],
)
def test_arguments_that_the_schema_does_not_accept_are_refused_by_path(
    name, arguments, where, said
):
    found = refusals(spec("remove_invalid_values"), spec(name, arguments))
    assert list(found) == [f"{AT}[1].arguments_json{where}"]
    assert said in found[f"{AT}[1].arguments_json{where}"]


def test_every_problem_of_every_processor_is_named_at_once():
    found = refusals(
        spec("top_k", {"top_k": 0, "min_tokens_to_keep": 0}),
        spec("no_such"),
        spec(CUSTOM.name, {"weights": [0, 0], "window": 0}),
        spec("top_p", {"top_p": 2}),
    )
    assert set(found) == {
        f"{AT}[0].arguments_json.top_k",
        f"{AT}[0].arguments_json.min_tokens_to_keep",
        f"{AT}[1].name",
        f"{AT}[2].arguments_json.weights[0]",
        f"{AT}[2].arguments_json.weights[1]",
        f"{AT}[2].arguments_json.window",
        f"{AT}[3].arguments_json.top_p",
    }


def test_a_custom_processor_gets_the_defaults_of_its_schema():
    resolved = resolve(spec(CUSTOM.name, {"weights": [0.5]}))
    (got,) = resolved.config.processors
    assert json.loads(got.arguments_json) == {"weights": [0.5], "window": 4}


@pytest.mark.parametrize(
    ("name", "arguments", "where"),
    [
        ("suppress_tokens", {"token_ids": [1, SIZE]}, ".token_ids"),
        ("forced_bos_token_id", {"token_id": SIZE}, ".token_id"),
        ("bad_words_ids", {"bad_words_ids": [[1], [1, SIZE]]}, ".bad_words_ids[1]"),
        (
            "sequence_bias",
            {"sequence_bias": [{"ids": [SIZE], "bias": 1}]},
            ".sequence_bias[0].ids",
        ),
        (
            "logit_bias",
            {"logit_bias": [{"token_id": SIZE, "bias": 1}]},
            ".logit_bias[0].token_id",
        ),
        (CUSTOM.name, {"weights": [], "ends": [{"ids": [2, SIZE]}]}, ".ends[0].ids"),
    ],
)
def test_every_id_is_compared_with_the_vocabulary(name, arguments, where):
    with pytest.raises(TokenIdOutOfRange) as caught:
        resolve(spec(name, arguments))
    assert caught.value.metadata["field"] == f"{AT}[0].arguments_json{where}"
    assert caught.value.metadata["vocabularySize"] == str(SIZE)


@pytest.mark.parametrize("name", [*EXAMPLES, CUSTOM.name])
def test_only_processors_that_can_do_something_twice_are_accepted_twice(name):
    arguments = EXAMPLES.get(name, {"weights": []})
    twice = (spec(name, arguments), spec(name, arguments))
    if name in {"temperature", "remove_invalid_values", "renormalize_logits"}:
        assert applied_processors(resolve(*twice).config) == [name, name]
    else:
        assert set(refusals(*twice)) == {f"{AT}[1].name"}


def test_warpers_need_sampling_unless_lenient():
    pipeline = (spec("top_k", {"top_k": 5}), spec("suppress_tokens", {"token_ids": [1]}))
    assert set(refusals(*pipeline, do_sample=False)) == {f"{AT}[0]"}
    config = resolve(*pipeline, do_sample=False, lenient=True).config
    assert applied_processors(config) == ["suppress_tokens"]


def test_processors_of_ends_need_ends_unless_lenient():
    pipeline = spec("min_new_tokens", {"min_new_tokens": 2})
    none = {"eos_token_ids": TokenIdList()}
    assert set(refusals(pipeline, **none)) == {f"{AT}[0]"}
    assert applied_processors(resolve(pipeline, lenient=True, **none).config) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 7},
        {"temperature": 0.3},
        {"repetition_penalty": 1.1},
        {"min_new_tokens": 2},
        {"suppress_tokens": TokenIdList(ids=[1])},
        {"min_tokens_to_keep": 2},
        {"renormalize_logits": True},
    ],
)
def test_a_field_that_implies_a_processor_is_refused_beside_a_pipeline(fields):
    pipeline = spec("top_p", {"top_p": 0.5})
    assert set(refusals(pipeline, **fields)) == {f"generation_config.{name}" for name in fields}
    assert applied_processors(resolve(pipeline, lenient=True, **fields).config) == ["top_p"]


def test_fields_about_ends_and_lengths_stand_beside_a_pipeline():
    config = resolve(
        spec("top_p", {"top_p": 0.5}), max_new_tokens=5, stop_token_ids=[8], seed=3
    ).config
    assert (config.max_new_tokens, config.stop_token_ids) == (5, (8,))


def test_size_is_bounded_before_anything_is_checked():
    ids = json.dumps({"token_ids": [1] * (MAX_ARGUMENTS_BYTES // 3)})
    assert f"the limit is {MAX_ARGUMENTS_BYTES}" in refusals(spec("suppress_tokens", ids))[AT]


def test_what_is_wrong_in_long_arguments_is_named_without_a_look_at_each_value():
    arguments = {"token_ids": [5] * 5000 + [-1] * 5000}
    ((path, description),) = refusals(spec("suppress_tokens", arguments)).items()
    assert path == f"{AT}[0].arguments_json.token_ids[5000]"
    assert "schema" in description
    resolve(spec("suppress_tokens", {"token_ids": [5] * 10_000}))


PROBES = [-101, -100, -1, 0, 1e-9, 0.5, 1, 1.5, 2, 100, 100.5, 1e6, 2e6, 2**31 - 1]


@pytest.mark.parametrize("name", [row.name for row in PROCESSORS if isinstance(row.kind, Number)])
def test_a_field_and_the_argument_it_implies_have_one_range(name):
    schema = json.loads(BUILT_IN[name].arguments_schema_json)
    (argument,) = (schema["properties"][key] for key in schema["required"])
    whole = argument["type"] == "integer"
    probes = [value for value in PROBES if not whole or value == int(value)]
    accepted = {v for v in probes if jsonschema.Draft202012Validator(argument).is_valid(v)}
    in_range = {value for value in probes if value in PARAMETERS[name].kind}
    off = PARAMETERS[name].off
    assert accepted - {off} == in_range - {off}
    assert accepted <= in_range


def test_published_schemas_are_strict():
    for description in BUILT_IN.values():
        schema = json.loads(description.arguments_schema_json)
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        assert description.description.endswith(".")
