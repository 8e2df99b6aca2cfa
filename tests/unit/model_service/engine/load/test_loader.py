import json
from pathlib import Path

import pytest
import torch
from lockstep.v1.generation_pb2 import GenerationConfig
from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig, MistralConfig, Qwen2Config

from model_service.engine.load.loader import Refused, layer_windows
from model_service.front.checks.configuration import effective_message, resolve
from model_service.protocol.processor_arguments import GreenListWatermark
from tests.checkpoint_factory import CONTEXT_LENGTH, make_checkpoint
from tests.engine_harness import InprocEngine
from wire.violations import Violations


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "llama", "llama")


def set_defaults(checkpoint: Path, **fields: object) -> None:
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_defaults_are_the_models_own_and_then_hugging_faces(checkpoint):
    set_defaults(checkpoint, do_sample=True, top_p=0.8, eos_token_id=[0, 2])
    config = InprocEngine(checkpoint).info.default_config
    assert (config.do_sample, config.top_p, config.eos_token_ids) == (True, 0.8, (0, 2))
    assert (config.temperature, config.top_k) == (1.0, 50)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"no_repeat_ngram_size": 3}, 3),
        ({"suppress_tokens": [5]}, (5,)),
        ({"forced_eos_token_id": 7}, (7,)),
        ({"bad_words_ids": [[5, 6]]}, ((5, 6),)),
        ({"sequence_bias": [[[5, 6], -2.0]]}, (((5, 6), -2.0),)),
        ({"exponential_decay_length_penalty": [3, 1.5]}, (3, 1.5)),
        ({"watermarking_config": {"bias": 3.0}}, GreenListWatermark(bias=3.0)),
        ({"min_p": 0.25}, 0.25),
        ({"guidance_scale": 2.0}, 2.0),
        ({"num_beams": 4}, 4),
        ({"length_penalty": 0.5}, 0.5),
        ({"early_stopping": True}, True),
        ({"early_stopping": "never"}, "never"),
        ({"stop_strings": "end"}, ("end",)),
        ({"prompt_lookup_num_tokens": 5}, 5),
        ({"stop_strings": ["a", "b"]}, ("a", "b")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_default_of_any_processor_is_the_models_own(checkpoint, field, value):
    names = {
        "forced_eos_token_id": "forced_eos_token_ids",
        "watermarking_config": "green_list_watermark",
    }
    set_defaults(checkpoint, **field)
    name = next(iter(field))
    config = InprocEngine(checkpoint).info.default_config
    assert getattr(config, names.get(name, name)) == value


@pytest.mark.parametrize(
    "field",
    [
        {"forced_bos_token_id": 10**6},
        {"sequence_bias": [[[10**6], 1.0]]},
        {"top_h": 2.0, "do_sample": True},
        {"temperature": 0.0, "do_sample": True},
    ],
    ids=lambda field: next(iter(field)),
)
def test_a_default_that_cannot_be_applied_is_refused(checkpoint, field):
    set_defaults(checkpoint, **field)
    with pytest.raises(Refused, match="cannot be applied"):
        InprocEngine(checkpoint)


@pytest.mark.parametrize(
    "field",
    [
        {"do_sample": True, "temperature": 1e-45},
        {"do_sample": True, "temperature": 1e30},
        {"repetition_penalty": 1e-45},
        {"guidance_scale": 1e30},
        {"num_beams": 2, "length_penalty": -1e30},
    ],
    ids=lambda field: list(field)[-1],
)
def test_a_default_that_no_request_could_give_is_refused_by_name(checkpoint, field):
    set_defaults(checkpoint, **field)
    with pytest.raises(Refused, match=rf"{list(field)[-1]} to \S+, which must be in "):
        InprocEngine(checkpoint)


def test_a_default_without_an_effect_may_be_any_number(checkpoint):
    set_defaults(checkpoint, do_sample=False, temperature=0.0, length_penalty=-1e30)
    assert InprocEngine(checkpoint).info.default_config.num_beams == 1


def test_warpers_of_a_model_that_is_greedy_by_default_are_not_read(checkpoint):
    set_defaults(checkpoint, do_sample=False, temperature=0.0, top_h=2.0)
    assert len(InprocEngine(checkpoint).generate([[5, 6, 7]])[0]) == 8


def test_a_negative_max_time_of_the_models_own_ends_after_a_token_as_in_generate(checkpoint):
    set_defaults(checkpoint, max_time=-1.0)
    engine = InprocEngine(checkpoint)
    (tokens,) = engine.generate([[5, 6, 7]], max_time=engine.info.default_config.max_time)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    output = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=8)
    assert tokens == output[0, 3:].tolist()
    assert len(tokens) == 1


def test_a_call_with_a_negative_max_time_of_the_models_own_can_be_repeated_from_its_answer(
    checkpoint,
):
    set_defaults(checkpoint, max_time=-1.0)
    defaults = InprocEngine(checkpoint).info.default_config
    asked, violations = GenerationConfig(), Violations()
    for _ in range(2):
        resolved = resolve(asked, defaults, violations, vocabulary_size=320, max_return_sequences=1)
        violations.check()
        assert resolved.config.max_time == defaults.max_time
        asked = effective_message(resolved, seed=1)


@pytest.mark.parametrize(
    "field",
    [
        {"penalty_alpha": 0.6},
        {"num_beams": 33},
        {"num_beams": 4, "guidance_scale": 2.0},
        {"num_beam_groups": 2, "num_beams": 4},
    ],
    ids=lambda field: " and ".join(field),
)
def test_a_default_that_is_not_applied_is_refused_by_name(checkpoint, field):
    set_defaults(checkpoint, **field)
    with pytest.raises(Refused, match=next(iter(field))):
        InprocEngine(checkpoint)


def test_the_context_is_what_the_model_was_made_for_unless_set_lower(checkpoint):
    assert InprocEngine(checkpoint).info.context_length == CONTEXT_LENGTH
    assert InprocEngine(checkpoint, max_context_tokens=99).info.context_length == 99


def test_the_type_of_the_weights_can_be_chosen(checkpoint):
    info = InprocEngine(checkpoint, dtype="bfloat16").info
    assert (info.dtype, info.parameter_count > 100_000) == ("bfloat16", True)


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 10**9},
        {"hidden_size": 2**31},
        {"intermediate_size": 10**10},
        {"head_dim": 10**8},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_configuration_of_a_far_larger_model_is_refused_before_memory_is_taken(
    checkpoint, changes
):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(Refused, match=r"config\.json describes a model of \d+ values"):
        InprocEngine(checkpoint)


def test_weights_that_are_not_safetensors_are_refused(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(Refused, match="safetensors"):
        InprocEngine(checkpoint)


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (LlamaConfig(num_hidden_layers=2), [None, None]),
        (MistralConfig(num_hidden_layers=2, sliding_window=7), [7, 7]),
        (MistralConfig(num_hidden_layers=2, sliding_window=None), [None, None]),
        (GemmaConfig(num_hidden_layers=2), [None, None]),
        (Qwen2Config(num_hidden_layers=2, sliding_window=7, use_sliding_window=False), [None] * 2),
        (
            Qwen2Config(
                num_hidden_layers=3, sliding_window=7, use_sliding_window=True, max_window_layers=1
            ),
            [None, 7, 7],
        ),
    ],
    ids=["llama", "mistral", "mistral without", "gemma", "qwen2 off", "qwen2 on"],
)
def test_each_layer_has_the_window_of_its_type(config, windows):
    assert layer_windows(config) == windows


def test_a_layer_of_an_unknown_type_is_refused():
    config = LlamaConfig(num_hidden_layers=2)
    config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(Refused, match="chunked_attention"):
        layer_windows(config)


def test_the_models_own_max_length_is_the_default_where_it_has_no_max_new_tokens(checkpoint):
    set_defaults(checkpoint, max_length=40)
    assert InprocEngine(checkpoint).info.default_config.max_length == 40
    set_defaults(checkpoint, max_length=40, max_new_tokens=7)
    config = InprocEngine(checkpoint).info.default_config
    assert (config.max_length, config.max_new_tokens) == (None, 7)


def test_the_models_own_max_length_above_the_context_is_lowered_to_it(checkpoint):
    set_defaults(checkpoint, max_length=100_000)
    assert InprocEngine(checkpoint).info.default_config.max_length == CONTEXT_LENGTH


@pytest.mark.parametrize(
    "field",
    [
        {"num_return_sequences": 2},
        {"token_healing": True},
        {"cache_implementation": "quantized"},
        {"penalty_alpha": 0.5},
        {"dola_layers": "low"},
        {"force_words_ids": [[1]]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_a_default_that_would_change_results_and_is_not_applied_is_refused(checkpoint, field):
    set_defaults(checkpoint, **field)
    with pytest.raises(Refused, match=next(iter(field))):
        InprocEngine(checkpoint)
