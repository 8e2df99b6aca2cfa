"""Explicit pipelines over the wire, with a tiny model."""

import json

import grpc
import pytest
from lockstep.v1 import generation_pb2
from lockstep.v1 import logits_session_service_pb2 as pb

from tests.integration.model_process import ragged, refusal
from tests.integration.test_model_generation import NO_EOS, PROMPTS, generate, ids

SAMPLING = {"do_sample": True, "max_new_tokens": 8, "seed": 5, "eos_token_ids": NO_EOS}
PIPELINE = [
    ("repetition_penalty", {"penalty": 1.3}),
    ("temperature", {"temperature": 0.8}),
    ("top_k", {"top_k": 30}),
]


def specs(pipeline):
    return [
        generation_pb2.LogitsProcessorSpec(name=name, arguments_json=json.dumps(arguments))
        for name, arguments in pipeline
    ]


def test_the_default_order_written_out_gives_what_the_fields_give(tiny_model):
    fields = {"repetition_penalty": 1.3, "temperature": 0.8, "top_k": 30}
    implied = generate(tiny_model, config=SAMPLING | fields)
    written = generate(tiny_model, config=SAMPLING | {"processors": specs(PIPELINE)})
    assert ids(written) == ids(implied)
    assert list(written.applied_processors) == list(implied.applied_processors)


def test_the_order_given_is_applied_echoed_and_reproducible(tiny_model):
    config = SAMPLING | {"processors": specs(PIPELINE[::-1])}
    first = generate(tiny_model, config=config)
    assert list(first.applied_processors) == [name for name, _ in PIPELINE[::-1]]
    again = generate(tiny_model, config=first.effective_config)
    assert ids(again) == ids(first)
    assert again.effective_config == first.effective_config


def test_a_loop_over_steps_applies_the_pipeline_as_generate_does(tiny_model):
    config = SAMPLING | {"processors": specs(PIPELINE[::-1])}
    expected = ids(generate(tiny_model, config=config))
    session = tiny_model.sessions.OpenSession(
        pb.OpenSessionRequest(
            prompt=ragged(*(prompt[:-1] for prompt in PROMPTS)), generation_config=config
        )
    )
    assert (
        session.effective_config.processors
        == generate(tiny_model, config=config).effective_config.processors
    )
    rows = [prompt[-1:] for prompt in PROMPTS]
    drawn = [[] for _ in PROMPTS]
    for _ in range(8):
        answer = tiny_model.sessions.Step(
            pb.StepRequest(
                session_id=session.session_id,
                rows=[pb.RowStep(ids=row) for row in rows],
                sampling=pb.StepSampling(),
            )
        )
        rows = [[row.sampled_token_id] for row in answer.rows]
        for tokens, row in zip(drawn, rows, strict=True):
            tokens += row
    tiny_model.sessions.CloseSession(pb.CloseSessionRequest(session_id=session.session_id))
    assert drawn == expected


def test_everything_wrong_with_a_pipeline_is_answered_at_once(tiny_model):
    wrong = specs([("top_k", {"top_k": 0}), ("no_such", {}), ("top_p", {"p": 0.5})])
    with pytest.raises(grpc.RpcError) as caught:
        generate(tiny_model, config=SAMPLING | {"processors": wrong})
    answer = refusal(caught.value)
    assert answer.reason == "INVALID_FIELD"
    at = "generation_config.processors"
    assert set(answer.fields) == {
        f"{at}[0].arguments_json.top_k",
        f"{at}[1].name",
        f"{at}[2].arguments_json",
    }
