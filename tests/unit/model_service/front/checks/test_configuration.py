"""Requests' configurations to resolved ones."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lockstep.v1 import generation_pb2
from lockstep.v1.generation_pb2 import GenerationConfig as Message

from model_service.front.checks import configuration
from model_service.front.checks.configuration import effective_message
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_order import applied_processors
from rpc.errors import InvalidField, TokenIdOutOfRange
from wire.violations import Violations

DEFAULTS = GenerationConfig(
    max_new_tokens=16, do_sample=True, temperature=0.5, top_k=20, top_p=0.9, eos_token_ids=(3, 4)
)
GREEDY = GenerationConfig(max_new_tokens=16, top_k=50, eos_token_ids=(3,))


def resolve(message: Message, defaults=DEFAULTS, **options):
    violations = Violations()
    resolved = configuration.resolve(
        message, defaults, violations, vocabulary_size=100, max_return_sequences=8, **options
    )
    violations.check()
    return resolved


def violated(message: Message, defaults=DEFAULTS) -> list[str]:
    with pytest.raises(InvalidField) as caught:
        resolve(message, defaults)
    return [violation.field for violation in caught.value.violations]


def description(message: Message) -> str:
    with pytest.raises(InvalidField) as caught:
        resolve(message)
    return caught.value.violations[0].description


def test_an_empty_message_is_the_default():
    assert resolve(Message()).config == DEFAULTS


def test_zero_is_a_value_and_not_the_default():
    assert resolve(Message(top_k=0, top_p=0.0)).config.top_k == 0
    assert resolve(Message(top_p=0.0)).config.top_p == 0.0


def test_given_fields_win_over_the_default():
    config = resolve(Message(temperature=0.25, max_new_tokens=5)).config
    assert (config.temperature, config.max_new_tokens, config.top_k) == (0.25, 5, 20)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -1),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", 1e-11),
        ("temperature", 1e-45),
        ("repetition_penalty", 1e-7),
        ("repetition_penalty", 1e-45),
        ("encoder_repetition_penalty", 1e-45),
        ("temperature", 1.1e6),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", -0.1),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("seed", -1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 101.0),
        ("repetition_penalty", math.nan),
        ("min_new_tokens", -1),
        ("min_new_tokens", 17),
        ("num_return_sequences", 0),
        ("num_return_sequences", 9),
        ("min_tokens_to_keep", 0),
        ("prompt_lookup_num_tokens", -1),
        ("prompt_lookup_num_tokens", 33),
        ("max_matching_ngram_size", 0),
        ("max_matching_ngram_size", 33),
        ("guidance_scale", -0.1),
        ("guidance_scale", 100.1),
        ("guidance_scale", math.nan),
        ("num_beams", 0),
        ("length_penalty", -100.5),
        ("length_penalty", math.nan),
        ("early_stopping", 4),
    ],
)
def test_a_value_out_of_range_is_named(field, value):
    assert violated(Message(**{field: value})) == [f"generation_config.{field}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 2**31 - 1),
        ("temperature", 1e6),
        ("temperature", 1e-10),
        ("top_k", 0),
        ("top_k", 2**31 - 1),
        ("top_p", 0.0),
        ("top_p", 1.0),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("repetition_penalty", 1e-6),
        ("encoder_repetition_penalty", 1e-6),
        ("repetition_penalty", 100.0),
        ("min_new_tokens", 16),
        ("num_return_sequences", 8),
        ("min_tokens_to_keep", 1),
        ("prompt_lookup_num_tokens", 0),
        ("prompt_lookup_num_tokens", 32),
        ("guidance_scale", 0.0),
        ("guidance_scale", 100.0),
    ],
)
def test_the_ends_of_every_range_are_allowed(field, value):
    resolve(Message(**{field: value}))


@pytest.mark.parametrize(
    ("fields", "effect", "is_ignored"),
    [
        ({"logit_bias": {97: 5.0, 1: 1.0}}, "has no effect on id 97", True),
        ({"allowed_token_ids": {"ids": [1, 98, 97]}}, "has no effect on id 97", True),
        ({"allowed_token_ids": {"ids": [98, 97]}}, "leaves no token to choose but id 97", False),
        ({"forced_eos_token_ids": {"ids": [97, 3]}}, "has no effect on id 97", True),
        ({"forced_eos_token_ids": {"ids": [97]}}, "leaves no token to choose but id 97", False),
        ({"forced_prefix": {"ids": [1, 97]}}, "leaves no token to choose but id 97", False),
        ({"forced_bos_token_id": 97}, "leaves no token to choose but id 97", False),
    ],
)
def test_an_id_that_must_not_be_generated_is_refused_where_it_is_meant_to_be(
    fields, effect, is_ignored
):
    resolve(Message(**fields), not_generable={1000})
    with pytest.raises(InvalidField, match=f"{effect}, which was added as not generable"):
        resolve(Message(**fields), not_generable={97, 98})
    lenient = Message(lenient=True, **fields)
    if is_ignored:
        resolve(lenient, not_generable={97, 98})
    else:
        with pytest.raises(InvalidField, match=effect):
            resolve(lenient, not_generable={97, 98})


def test_an_id_that_must_not_be_generated_may_be_suppressed_and_may_end():
    message = Message(suppress_tokens={"ids": [97]}, eos_token_ids={"ids": [97]})
    assert resolve(message, not_generable={97}).config.suppress_tokens == (97,)


def test_everything_wrong_is_reported_at_once():
    message = Message(temperature=math.nan, top_k=-1, top_p=2.0)
    assert len(violated(message)) == 3


def test_temperature_zero_is_refused_with_the_way_to_greedy_decoding():
    assert "do_sample = false" in description(Message(temperature=0.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.7), ("top_k", 5), ("top_p", 0.5), ("min_tokens_to_keep", 2)],
)
class TestWithoutSampling:
    def test_a_sampling_field_is_refused(self, field, value):
        message = Message(do_sample=False, **{field: value})
        assert violated(message) == [f"generation_config.{field}"]

    def test_a_sampling_field_is_refused_when_the_default_is_greedy(self, field, value):
        assert violated(Message(**{field: value}), GREEDY) == [f"generation_config.{field}"]

    def test_a_sampling_field_is_ignored_when_lenient(self, field, value):
        message = Message(do_sample=False, lenient=True, **{field: value})
        assert applied_processors(resolve(message).config) == []


def test_a_sampling_field_at_the_value_that_turns_it_off_is_no_contradiction():
    message = Message(do_sample=False, temperature=1.0, top_k=0, top_p=1.0, min_tokens_to_keep=1)
    assert not resolve(message).config.do_sample


def test_the_models_sampling_defaults_do_not_forbid_greedy_decoding():
    config = resolve(Message(do_sample=False)).config
    assert (config.temperature, config.top_k, config.top_p) == (1.0, 0, 1.0)


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("top_h", 2.0)])
def test_a_draw_needs_a_value_where_the_default_of_a_greedy_model_is_none(field, value):
    defaults = msgspec.structs.replace(DEFAULTS, do_sample=False, **{field: value})
    resolve(Message(), defaults)
    resolve(Message(**{"do_sample": True, field: 0.5}), defaults)
    assert violated(Message(do_sample=True), defaults) == [f"generation_config.{field}"]


def test_several_sequences_need_sampling():
    message = Message(do_sample=False, num_return_sequences=2)
    assert violated(message) == ["generation_config.num_return_sequences"]
    assert resolve(Message(num_return_sequences=2)).num_return_sequences == 2


def test_an_empty_list_of_end_ids_means_none():
    message = Message(eos_token_ids={"ids": []})
    assert resolve(message).config.eos_token_ids == ()


def test_unset_end_ids_are_the_models():
    assert resolve(Message()).config.eos_token_ids == (3, 4)


@pytest.mark.parametrize("bad", [-1, 100, 2**31 - 1])
@pytest.mark.parametrize("field", ["stop_token_ids", "eos_token_ids"])
def test_an_id_outside_of_the_vocabulary_is_named(field, bad):
    ids = [1, bad]
    message = Message(**{field: {"ids": ids} if field == "eos_token_ids" else ids})
    with pytest.raises(TokenIdOutOfRange) as caught:
        resolve(message)
    assert caught.value.metadata["field"] == f"generation_config.{field}"
    assert caught.value.metadata["index"] == "1"
    assert caught.value.metadata["tokenId"] == str(bad)


@pytest.mark.parametrize("mode", ["counter", "torch"])
def test_the_seed_mode_is_read_and_echoed(mode):
    value = generation_pb2.SeedMode.Value(f"SEED_MODE_{mode.upper()}")
    resolved = resolve(Message(seed_mode=value, do_sample=True))
    assert resolved.config.seed_mode == mode
    assert effective_message(resolved, seed=1).seed_mode == value


def test_an_unknown_seed_mode_is_a_violation():
    with pytest.raises(InvalidField) as caught:
        resolve(Message(seed_mode=9))
    assert "seed_mode" in str(caught.value)


def test_beams_are_drawn_as_torch_does_from_as_many_scores_as_torch_takes():
    most = 2**24 // 100
    message = Message(num_beams=most, do_sample=True, seed_mode=generation_pb2.SEED_MODE_TORCH)
    assert resolve(message).config.seed_mode == "torch"
    message.num_beams += 1
    with pytest.raises(InvalidField) as caught:
        resolve(message)
    assert "generation_config.seed_mode" in str(caught.value)
    message.do_sample = False
    assert resolve(message).config.num_beams == most + 1


BEAMS = {"num_beams": 3, "do_sample": False}


def test_fields_of_beams_need_beams():
    message = Message(length_penalty=2.0, early_stopping=generation_pb2.EARLY_STOPPING_NEVER)
    assert violated(message) == [
        "generation_config.length_penalty",
        "generation_config.early_stopping",
    ]
    message.lenient = True
    assert resolve(message).config == DEFAULTS
    message = Message(length_penalty=1.0, early_stopping=generation_pb2.EARLY_STOPPING_FALSE)
    assert resolve(message).config == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (generation_pb2.EARLY_STOPPING_TRUE, True),
        (generation_pb2.EARLY_STOPPING_FALSE, False),
        (generation_pb2.EARLY_STOPPING_NEVER, "never"),
    ],
)
def test_when_beams_stop_is_read_and_echoed(name, value):
    resolved = resolve(Message(early_stopping=name, length_penalty=-0.7, **BEAMS))
    assert resolved.config.early_stopping == value
    assert resolved.config.length_penalty == -0.7
    echoed = effective_message(resolved, seed=1)
    assert (echoed.early_stopping, echoed.num_beams) == (name, 3)
    assert resolve(echoed).config == resolved.config


def test_no_more_sequences_than_beams_are_returned():
    message = Message(num_return_sequences=3, **BEAMS)
    assert resolve(message).num_return_sequences == 3
    message.num_return_sequences = 4
    assert violated(message) == ["generation_config.num_return_sequences"]


def test_warpers_of_beams_leave_a_token_beside_all_ends():
    sampled = {"num_beams": 3, "do_sample": True, "top_k": 1}
    assert resolve(Message(**sampled)).config.min_tokens_to_keep == 3
    assert resolve(Message(eos_token_ids={}, **sampled)).config.min_tokens_to_keep == 2
    assert resolve(Message(min_tokens_to_keep=1, **sampled)).config.min_tokens_to_keep == 1
    assert resolve(Message(**BEAMS)).config.min_tokens_to_keep == 1


def test_the_length_of_a_match_needs_prompt_lookup():
    path = "generation_config.max_matching_ngram_size"
    for size in (1, 32):
        assert violated(Message(max_matching_ngram_size=size)) == [path]
        message = Message(max_matching_ngram_size=size, prompt_lookup_num_tokens=4)
        config = resolve(message).config
        assert (config.prompt_lookup_num_tokens, config.max_matching_ngram_size) == (4, size)


def test_a_negative_prompt_needs_guidance():
    message = Message(negative_prompt={"ids": [1]})
    assert violated(message) == ["generation_config.negative_prompt"]
    message.lenient = True
    assert resolve(message).config == DEFAULTS
    message = Message(negative_prompt={"ids": [1]}, guidance_scale=1.5)
    assert resolve(message).config.negative_prompt == (1,)


def test_a_negative_prompt_must_have_an_id_of_the_vocabulary():
    message = Message(negative_prompt={}, guidance_scale=1.5)
    assert violated(message) == ["generation_config.negative_prompt.ids"]
    with pytest.raises(TokenIdOutOfRange):
        resolve(Message(negative_prompt={"ids": [100]}, guidance_scale=1.5))


def test_guidance_comes_first():
    message = Message(repetition_penalty=1.1, guidance_scale=2.0, do_sample=False)
    assert applied_processors(resolve(message).config) == ["guidance_scale", "repetition_penalty"]


def test_processors_are_named_in_hugging_faces_order_when_they_are_active():
    message = Message(repetition_penalty=1.1, min_new_tokens=2, temperature=0.7, top_k=5, top_p=0.5)
    assert applied_processors(resolve(message).config) == [
        "repetition_penalty",
        "min_new_tokens",
        "temperature",
        "top_k",
        "top_p",
    ]


def test_processors_that_change_nothing_are_not_named():
    message = Message(temperature=1.0, top_k=0, top_p=1.0)
    assert applied_processors(resolve(message).config) == []


def test_warpers_are_not_applied_without_sampling():
    message = Message(do_sample=False, repetition_penalty=1.1)
    assert applied_processors(resolve(message).config) == ["repetition_penalty"]


def test_a_number_is_the_one_that_was_written():
    config = resolve(Message(temperature=0.7, top_p=0.95)).config
    assert (config.temperature, config.top_p) == (0.7, 0.95)


configs = st.builds(
    Message,
    max_new_tokens=st.none() | st.integers(1, 50),
    do_sample=st.none() | st.booleans(),
    temperature=st.none() | st.floats(0.125, 1e6, width=32),
    top_k=st.none() | st.integers(0, 200),
    top_p=st.none() | st.floats(0, 1, width=32),
    repetition_penalty=st.none() | st.floats(0.125, 100, width=32),
    min_new_tokens=st.none() | st.integers(0, 1),
    min_tokens_to_keep=st.none() | st.integers(1, 9),
    stop_token_ids=st.lists(st.integers(0, 99), max_size=3),
    min_p=st.none() | st.floats(0, 1, width=32),
    top_h=st.none() | st.floats(0.125, 1, width=32),
    typical_p=st.none() | st.floats(0.125, 1, width=32),
    num_beams=st.none() | st.integers(1, 9),
    length_penalty=st.none() | st.floats(-100, 100, width=32),
    early_stopping=st.integers(0, 3),
    guidance_scale=st.none() | st.floats(0, 100, width=32),
    negative_prompt=st.none()
    | st.builds(dict, ids=st.lists(st.integers(0, 99), min_size=1, max_size=3)),
    presence_penalty=st.none() | st.floats(-100, 100, width=32),
    no_repeat_ngram_size=st.none() | st.integers(0, 9),
    logit_bias=st.none()
    | st.dictionaries(st.integers(0, 99), st.floats(-100, 100, width=32), max_size=3),
    suppress_tokens=st.none() | st.builds(dict, ids=st.lists(st.integers(0, 99), max_size=3)),
    max_time=st.none()
    | st.builds(dict, seconds=st.integers(1, 9), nanos=st.integers(0, 10**9 - 1)),
    renormalize_logits=st.none() | st.booleans(),
    lenient=st.just(True),
)


@settings(deadline=None)  # a busy machine is no failure
@given(configs, st.sampled_from([DEFAULTS, GREEDY]))
def test_the_effective_configuration_sent_again_gives_itself(message, defaults):
    first = resolve(message, defaults)
    echoed = effective_message(first, seed=11)
    assert not echoed.lenient
    second = resolve(echoed, defaults)
    assert effective_message(second, seed=11) == echoed
    assert second.config == first.config
