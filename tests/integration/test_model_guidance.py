"""Guidance over gRPC, against Hugging Face."""

import pytest
import torch
from lockstep.v1 import logits_session_service_pb2, model_info_service_pb2
from transformers import AutoModelForCausalLM

from lockstep_client import Lockstep
from tests.integration.model_process import ragged
from tests.integration.test_model_errors import refused
from tests.integration.test_model_generation import generate, ids, load, stream

NEGATIVE = [9, 8, 7, 300]
CONFIG = {
    "max_new_tokens": 12,
    "guidance_scale": 2.5,
    "negative_prompt": {"ids": NEGATIVE},
    "eos_token_ids": {"ids": []},
}
PROMPTS = [[5, 6, 7], [40] * 30]


@pytest.fixture(scope="module")
def expected(tiny_checkpoint) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [
            model.generate(
                torch.tensor([prompt]),
                max_new_tokens=12,
                do_sample=False,
                guidance_scale=2.5,
                negative_prompt_ids=torch.tensor([NEGATIVE]),
                eos_token_id=None,
                pad_token_id=0,
            )[0, len(prompt) :].tolist()
            for prompt in PROMPTS
        ]


def test_tokens_equal_hugging_faces_and_the_configuration_is_echoed(tiny_model, expected):
    response = generate(tiny_model, ragged(*PROMPTS), CONFIG)
    assert ids(response) == expected
    assert response.applied_processors == ["guidance_scale"]
    assert response.effective_config.guidance_scale == 2.5
    assert list(response.effective_config.negative_prompt.ids) == NEGATIVE
    again = generate(tiny_model, ragged(*PROMPTS), response.effective_config)
    assert ids(again) == expected
    assert load(tiny_model).kv_used_token_count == 0


def test_a_stream_carries_the_same_tokens(tiny_model, expected):
    tokens = [[], []]
    for event in stream(tiny_model, ragged(*PROMPTS), CONFIG):
        for delta in event.deltas.deltas:
            tokens[delta.prompt_index] += delta.token_ids
    assert tokens == expected


def test_a_stream_that_is_cancelled_frees_both_rows(tiny_model):
    call = stream(tiny_model, ragged([5, 6]), CONFIG | {"max_new_tokens": 200})
    next(call)
    next(call)
    assert load(tiny_model).running_sequence_count == 2
    call.cancel()
    while load(tiny_model).kv_used_token_count:
        pass


def test_the_client_has_the_keywords(tiny_model, expected):
    with Lockstep(model=tiny_model.service.address) as client:
        out = client.model.generate(
            PROMPTS,
            max_new_tokens=12,
            guidance_scale=2.5,
            negative_prompt=NEGATIVE,
            eos_token_id=[],
        )
    assert [list(row.token_ids) for row in out.details] == expected


def test_guidance_is_offered(tiny_model):
    answer = tiny_model.info.GetCapabilities(model_info_service_pb2.GetCapabilitiesRequest())
    assert answer.generation_fields["guidance_scale"] == 1
    assert answer.generation_fields["negative_prompt"] == 1


def test_a_session_refuses_guidance_and_says_what_to_do(tiny_model):
    open_session = logits_session_service_pb2.OpenSessionRequest(
        prompt=ragged([5]), generation_config={"guidance_scale": 2.0}
    )
    answer = refused(tiny_model.sessions.OpenSession, open_session)
    assert answer.fields == ["generation_config.guidance_scale"]
    open_session.generation_config.lenient = True
    opened = tiny_model.sessions.OpenSession(open_session)
    assert opened.effective_config.guidance_scale == 1.0
    close = logits_session_service_pb2.CloseSessionRequest(session_id=opened.session_id)
    tiny_model.sessions.CloseSession(close)
