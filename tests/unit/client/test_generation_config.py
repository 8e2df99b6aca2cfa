import numpy as np
import pytest
from lockstep.v1 import generation_pb2 as pb

from lockstep_client._requests import generation_config
from lockstep_client._requests.model import GenerateOptions

RENAMED = {"eos_token_ids": "eos_token_id", "forced_eos_token_ids": "forced_eos_token_id"}


def test_every_field_of_the_message_has_a_keyword_and_the_other_way_round():
    fields = {RENAMED.get(f.name, f.name) for f in pb.GenerationConfig.DESCRIPTOR.fields}
    assert fields == generation_config.KEYWORDS


def test_keywords_that_are_not_given_stay_unset():
    config = generation_config.build({"temperature": 0.0, "do_sample": False, "top_k": None})
    assert config is not None
    assert {field.name for field, _ in config.ListFields()} == {"temperature", "do_sample"}


def test_no_keywords_give_no_configuration():
    assert generation_config.build({}) is None
    assert generation_config.build({"seed": None}) is None


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("eos_token_id", 2, pb.GenerationConfig(eos_token_ids={"ids": [2]})),
        ("eos_token_id", [2, 3], pb.GenerationConfig(eos_token_ids={"ids": [2, 3]})),
        ("eos_token_id", np.int64(2), pb.GenerationConfig(eos_token_ids={"ids": [2]})),
        ("stop_token_ids", [7, 8], pb.GenerationConfig(stop_token_ids=[7, 8])),
        ("stop_strings", "end", pb.GenerationConfig(stop_strings=["end"])),
        ("stop_strings", ["a", "b"], pb.GenerationConfig(stop_strings=["a", "b"])),
        ("seed_mode", "torch", pb.GenerationConfig(seed_mode=pb.SEED_MODE_TORCH)),
        ("early_stopping", True, pb.GenerationConfig(early_stopping=pb.EARLY_STOPPING_TRUE)),
        ("early_stopping", "never", pb.GenerationConfig(early_stopping=pb.EARLY_STOPPING_NEVER)),
        ("max_time", 1.5, pb.GenerationConfig(max_time={"seconds": 1, "nanos": 500_000_000})),
        ("logit_bias", {5: -2.0}, pb.GenerationConfig(logit_bias={5: -2.0})),
        (
            "sequence_bias",
            {(1, 2): -1.0},
            pb.GenerationConfig(sequence_bias=[{"ids": [1, 2], "bias": -1.0}]),
        ),
        (
            "bad_words_ids",
            [[1], [2, 3]],
            pb.GenerationConfig(bad_words_ids=[{"ids": [1]}, {"ids": [2, 3]}]),
        ),
        (
            "exponential_decay_length_penalty",
            (5, 1.5),
            pb.GenerationConfig(
                exponential_decay_length_penalty={"start_index": 5, "decay_factor": 1.5}
            ),
        ),
        ("temperature", np.float32(0.5), pb.GenerationConfig(temperature=0.5)),
        ("top_k", np.int64(0), pb.GenerationConfig(top_k=0)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_keyword_becomes_its_field(keyword, value, expected):
    config = generation_config.build({keyword: value})
    assert config == expected
    assert [f.name for f, _ in config.ListFields()] == [f.name for f, _ in expected.ListFields()]


def test_an_empty_list_of_end_of_sequence_ids_is_not_the_same_as_none():
    config = generation_config.build({"eos_token_id": []})
    assert config is not None
    assert config.HasField("eos_token_ids")
    assert list(config.eos_token_ids.ids) == []


def test_a_misspelled_keyword_is_refused_with_the_right_one():
    with pytest.raises(TypeError, match=r"'temprature'.*Did you mean 'temperature'"):
        generation_config.build({"temprature": 1.0})


@pytest.mark.parametrize(
    ("keyword", "value", "kind"),
    [
        ("temperature", "hot", TypeError),
        ("top_k", 1.5, TypeError),
        ("top_k", 2**40, ValueError),
        ("seed_mode", "dice", ValueError),
        ("max_time", "soon", TypeError),
    ],
)
def test_a_value_without_a_form_on_the_wire_is_refused_with_its_keyword(keyword, value, kind):
    with pytest.raises(kind, match=f"^{keyword}(:| is) "):
        generation_config.build({keyword: value})


def test_keywords_of_the_call_itself_are_skipped():
    options = {"top_p": 0.5, "output_logits": True, "priority": 3}
    assert generation_config.build(options, beside=GenerateOptions) == pb.GenerationConfig(
        top_p=0.5
    )
    with pytest.raises(TypeError, match="output_logits"):
        generation_config.build(options)


def test_numbers_are_echoed_as_they_were_written():
    config = pb.GenerationConfig(temperature=0.7, seed=2**62, eos_token_ids={"ids": [1]})
    echoed = generation_config.to_dict(config)
    assert echoed == {"temperature": 0.7, "seed": 2**62, "eos_token_ids": [1]}
