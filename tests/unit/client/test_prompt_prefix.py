"""What gateways are told of how prompts begin."""

import numpy as np
import pytest
from lockstep.v1 import logits_session_service_pb2 as session_pb
from lockstep.v1 import model_service_pb2 as model_pb

from lockstep_client._transport.prompt_prefix import KEY, NUM_TOKENS, metadata, routed
from lockstep_client._values import batch as batches

SECRET = b"secret"
LONG = list(range(NUM_TOKENS))


def named(*rows: list[int], secret: bytes = SECRET, **fields: str) -> str | None:
    prompt = batches.prompt_message(list(rows))
    request = model_pb.GenerateRequest(prompt=prompt, **fields)
    return dict(metadata(request, secret)).get(KEY)


def test_prompts_that_begin_alike_have_one_name_and_others_others():
    assert named([*LONG, 7]) == named([*LONG, 8], [9])
    assert named([*LONG, 7]) != named([1, *LONG])
    assert named(LONG) != named(LONG, cache_salt="mine")


def test_without_the_key_nobody_finds_the_name_of_a_prompt():
    assert named(LONG) != named(LONG, secret=b"another")
    assert len(named(LONG) or "") == 16


def test_a_short_prompt_and_a_request_without_one_have_no_name():
    assert named(LONG[:-1]) is None
    assert metadata(model_pb.GenerateRequest(session_id="s"), SECRET) == ()
    assert metadata(session_pb.StepRequest(session_id="s"), SECRET) == ()


def test_the_name_is_that_of_the_tokens_in_whatever_message_and_form_they_come():
    padded = {
        "input_ids": np.array([[0, *LONG], [0] * (NUM_TOKENS + 1)]),
        "attention_mask": np.array([[0] + [1] * NUM_TOKENS, [1] * (NUM_TOKENS + 1)]),
    }
    prompt = batches.prompt_message(padded)
    generate = model_pb.GenerateRequest(prompt=prompt)
    for request in (
        generate,
        model_pb.GenerateStreamRequest(request=generate),
        model_pb.ScoreRequest(prompt=prompt),
        model_pb.ComputeLogitsRequest(prompt=prompt),
        session_pb.OpenSessionRequest(prompt=prompt),
    ):
        assert metadata(request, SECRET) == ((KEY, named(LONG)),)


@pytest.mark.parametrize(("keyword", "expected"), [(None, True), (True, True), (False, False)])
def test_the_keyword_decides(keyword, expected):
    assert routed(keyword) is expected
