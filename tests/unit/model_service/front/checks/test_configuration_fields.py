"""Fields that hold ids or messages: what they become, what is refused, what is echoed."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lockstep.v1.generation_pb2 import GenerationConfig as Message

from model_service.front.checks import configuration
from model_service.front.checks.configuration import effective_message
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_arguments import GreenListWatermark, SynthIdWatermark
from model_service.protocol.processor_order import applied_processors
from rpc.errors import InvalidField, TokenIdOutOfRange
from wire.violations import Violations

SIZE = 300
DEFAULTS = GenerationConfig(max_new_tokens=16, eos_token_ids=(3,), suppress_tokens=(9,))


def resolve(**fields):
    violations = Violations()
    resolved = configuration.resolve(
        Message(**fields), DEFAULTS, violations, vocabulary_size=SIZE, max_return_sequences=8
    )
    violations.check()
    return resolved


def violated(**fields) -> list[str]:
    with pytest.raises(InvalidField) as caught:
        resolve(**fields)
    return [violation.field for violation in caught.value.violations]


READ = [
    ("stop_sequences", [{"ids": [1, 2]}, {"ids": [3]}], ((1, 2), (3,))),
    ("stop_strings", ["é", "x" * 256] * 4, ("é", "x" * 256) * 4),
    ("max_time", {"seconds": 1, "nanos": 500_000_000}, 1.5),
    ("sequence_bias", [{"ids": [1, 2], "bias": -0.3}], (((1, 2), -0.3),)),
    ("sequence_bias", [{"ids": [1], "bias": -math.inf}], (((1,), -math.inf),)),
    ("logit_bias", {7: 0.1, 2: -100.0}, ((2, -100.0), (7, 0.1))),
    ("bad_words_ids", [{"ids": [1]}, {"ids": [2, 3]}], ((1,), (2, 3))),
    ("allowed_token_ids", {"ids": [5, 1]}, (5, 1)),
    ("forced_prefix", {"ids": [5, 1]}, (5, 1)),
    ("forced_bos_token_id", 0, 0),
    ("forced_eos_token_ids", {"ids": [4]}, (4,)),
    ("exponential_decay_length_penalty", {"start_index": 2, "decay_factor": 1.1}, (2, 1.1)),
    ("suppress_tokens", {"ids": []}, ()),
    ("begin_suppress_tokens", {"ids": [4, 4]}, (4, 4)),
    ("green_list_watermark", {}, GreenListWatermark()),
    (
        "synth_id_watermark",
        {"ngram_len": 2, "keys": [2**63 - 1]},
        SynthIdWatermark(ngram_len=2, keys=(2**63 - 1,)),
    ),
    (
        "synth_id_watermark",
        {
            "ngram_len": 256,
            "keys": [1] * 64,
            "context_history_size": 2**16,
            "sampling_table_seed": 2**63 - 1,
            "sampling_table_size": 2**20,
            "skip_first_ngram_calls": True,
        },
        SynthIdWatermark(256, (1,) * 64, 2**16, 2**63 - 1, 2**20, True),
    ),
    (
        "green_list_watermark",
        {
            "greenlist_ratio": 0.1,
            "bias": 0.7,
            "hashing_key": 5,
            "self_hash": True,
            "context_width": 3,
        },
        GreenListWatermark(0.1, 0.7, 5, True, 3),
    ),
]


@pytest.mark.parametrize(("field", "value", "expected"), READ)
def test_a_field_is_read_and_echoed(field, value, expected):
    resolved = resolve(**{field: value})
    assert getattr(resolved.config, field) == expected
    echoed = effective_message(resolved, seed=1)
    again = configuration.resolve(
        echoed, DEFAULTS, Violations(), vocabulary_size=SIZE, max_return_sequences=8
    )
    assert again.config == resolved.config


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("stop_sequences", [{"ids": []}], "stop_sequences[0].ids"),
        ("stop_sequences", [{"ids": [1]}, {"ids": [1] * 1025}], "stop_sequences[1].ids"),
        ("stop_strings", ["x", ""], "stop_strings[1]"),
        ("bad_words_ids", [{"ids": [1] * 1025}], "bad_words_ids[0].ids"),
        ("suppress_tokens", {"ids": [1] * (SIZE + 1)}, "suppress_tokens.ids"),
        ("eos_token_ids", {"ids": [1] * (SIZE + 1)}, "eos_token_ids.ids"),
        ("forced_prefix", {"ids": [1] * (2**20 + 1)}, "forced_prefix.ids"),
        ("bad_words_ids", [{"ids": [1]}, {"ids": []}], "bad_words_ids[1].ids"),
        ("logit_bias", {1: 100.5}, "logit_bias[1]"),
        ("logit_bias", {1: math.nan}, "logit_bias[1]"),
        ("sequence_bias", [{"ids": [], "bias": 1.0}], "sequence_bias[0].ids"),
        ("sequence_bias", [{"ids": [1], "bias": math.inf}], "sequence_bias[0].bias"),
        ("sequence_bias", [{"ids": [1], "bias": math.nan}], "sequence_bias[0].bias"),
        ("sequence_bias", [{"ids": [1], "bias": 3.4e38}], "sequence_bias[0].bias"),
        ("sequence_bias", [{"ids": [1], "bias": -1.1e9}], "sequence_bias[0].bias"),
        ("sequence_bias", [{"ids": [1]}, {"ids": [1]}], "sequence_bias[1].ids"),
        ("allowed_token_ids", {"ids": []}, "allowed_token_ids.ids"),
        ("max_time", {"seconds": 0}, "max_time"),
        ("max_time", {"seconds": -1}, "max_time"),
        ("max_time", {"seconds": 1, "nanos": 10**9}, "max_time"),  # no Duration, though it parses
        ("max_time", {"seconds": 1, "nanos": -1}, "max_time"),
        (
            "exponential_decay_length_penalty",
            {"start_index": -1, "decay_factor": 1.0},
            "exponential_decay_length_penalty.start_index",
        ),
        (
            "exponential_decay_length_penalty",
            {"start_index": 1, "decay_factor": 0.0},
            "exponential_decay_length_penalty.decay_factor",
        ),
        (
            "green_list_watermark",
            {"greenlist_ratio": 1.0},
            "green_list_watermark.greenlist_ratio",
        ),
        ("green_list_watermark", {"hashing_key": -1}, "green_list_watermark.hashing_key"),
        ("green_list_watermark", {"context_width": 0}, "green_list_watermark.context_width"),
        *(
            (
                "synth_id_watermark",
                {"ngram_len": 5, "keys": [1], name: value},
                f"synth_id_watermark.{name}{where}",
            )
            for name, value, where in [
                ("ngram_len", 1, ""),
                ("ngram_len", 257, ""),
                ("keys", [1, -1], "[1]"),
                ("keys", [1] * 65, ""),
                ("context_history_size", 0, ""),
                ("context_history_size", 2**16 + 1, ""),
                ("sampling_table_seed", -1, ""),
                ("sampling_table_size", 0, ""),
                ("sampling_table_size", 2**20 + 1, ""),
            ]
        ),
        ("synth_id_watermark", {"ngram_len": 5}, "synth_id_watermark"),
        ("synth_id_watermark", {"keys": [5]}, "synth_id_watermark"),
        ("forced_prefix", {"ids": [1] * 17}, "forced_prefix"),
        ("forced_prefix", {"ids": [1, 9]}, "forced_prefix"),
        ("forced_bos_token_id", 9, "forced_bos_token_id"),
        ("forced_eos_token_ids", {"ids": [9]}, "forced_eos_token_ids"),
        ("prompt_ignore_length", 1, "prompt_ignore_length"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(field, value, path):
    assert violated(**{field: value}) == [f"generation_config.{path}"]


@pytest.mark.parametrize("bad", [-1, SIZE])
@pytest.mark.parametrize(
    ("field", "spell"),
    [
        ("stop_sequences", lambda i: [{"ids": [1, i]}]),
        ("bad_words_ids", lambda i: [{"ids": [1]}, {"ids": [i]}]),
        ("sequence_bias", lambda i: [{"ids": [1, i], "bias": 1.0}]),
        ("logit_bias", lambda i: {i: 1.0}),
        ("allowed_token_ids", lambda i: {"ids": [i]}),
        ("forced_prefix", lambda i: {"ids": [i]}),
        ("forced_bos_token_id", lambda i: i),
        ("forced_eos_token_ids", lambda i: {"ids": [i]}),
        ("suppress_tokens", lambda i: {"ids": [i]}),
        ("begin_suppress_tokens", lambda i: {"ids": [i]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_id_outside_of_the_vocabulary_is_named(field, spell, bad):
    with pytest.raises(TokenIdOutOfRange) as caught:
        resolve(**{field: spell(bad)})
    assert caught.value.metadata["field"] == f"generation_config.{field}"


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("min_p", -0.1, 1.1),
        ("top_n_sigma", -0.1, 100.1),
        ("top_h", 0.0, 1.1),
        ("typical_p", 0.0, 1.1),
        ("epsilon_cutoff", -0.1, 1.0),
        ("eta_cutoff", -0.1, 1.0),
        ("presence_penalty", -100.1, 100.1),
        ("frequency_penalty", -100.1, 100.1),
        ("encoder_repetition_penalty", 0.0, 100.1),
        ("no_repeat_ngram_size", -1, None),
        ("encoder_no_repeat_ngram_size", -1, None),
        ("min_length", -1, None),
        ("prompt_ignore_length", -1, None),
    ],
)
def test_a_number_out_of_range_is_named(field, low, high):
    sampling = {"do_sample": True, "repetition_penalty": 2.0}
    for value in (low, high):
        if value is not None:
            assert violated(**sampling, **{field: value}) == [f"generation_config.{field}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_p", 0.1),
        ("top_n_sigma", 1.0),
        ("top_h", 0.5),
        ("typical_p", 0.5),
        ("epsilon_cutoff", 0.1),
        ("eta_cutoff", 0.1),
    ],
)
def test_a_warper_needs_sampling(field, value):
    assert violated(**{field: value}) == [f"generation_config.{field}"]
    assert applied_processors(resolve(lenient=True, **{field: value}).config) == ["suppress_tokens"]
    sampled = resolve(do_sample=True, top_k=0, **{field: value}).config
    assert applied_processors(sampled) == ["suppress_tokens", field]


def test_a_lenient_request_may_have_a_prefix_longer_than_its_continuation():
    resolved = resolve(lenient=True, forced_prefix={"ids": [1] * 17})
    assert len(resolved.config.forced_prefix) == 17


def test_single_end_ids_among_bad_words_are_no_processor():
    config = resolve(bad_words_ids=[{"ids": [3]}]).config
    assert "bad_words_ids" not in applied_processors(config)


@given(st.floats(1e-9, 1e6))
def test_a_time_limit_survives_its_echo(seconds):
    message = Message()
    message.max_time.FromNanoseconds(max(1, round(seconds * 1e9)))
    violations = Violations()
    resolved = configuration.resolve(
        message, DEFAULTS, violations, vocabulary_size=SIZE, max_return_sequences=1
    )
    violations.check()
    assert resolved.config.max_time == pytest.approx(seconds, abs=1e-9)
    assert effective_message(resolved, seed=1).max_time == message.max_time


def test_a_watermark_of_the_request_replaces_that_of_the_model():
    marked = msgspec.structs.replace(DEFAULTS, green_list_watermark=GreenListWatermark())
    message = Message(synth_id_watermark={"ngram_len": 5, "keys": [1]})
    resolved = configuration.resolve(
        message, marked, Violations(), vocabulary_size=SIZE, max_return_sequences=1
    )
    assert applied_processors(resolved.config) == ["suppress_tokens", "synth_id_watermark"]
    assert effective_message(resolved, seed=1).WhichOneof("watermark") == "synth_id_watermark"
