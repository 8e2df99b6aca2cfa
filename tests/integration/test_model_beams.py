"""Beam search over gRPC, against Hugging Face."""

import grpc
import numpy as np
import pytest
import torch
from lockstep.v1 import (
    generation_pb2,
    logits_session_service_pb2,
    model_info_service_pb2,
    scores_pb2,
)
from transformers import AutoModelForCausalLM

from lockstep_client import AsyncLockstep, Lockstep
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.integration.model_process import model_process, ragged, refusal
from tests.integration.test_model_errors import refused, request
from tests.integration.test_model_generation import generate, ids, load, row, stream

PROMPTS = [[5, 6, 7], [40] * 30]
ENDS = [11, 12]
CONFIG = {
    "max_new_tokens": 12,
    "num_beams": 4,
    "num_return_sequences": 2,
    "length_penalty": 0.5,
    "early_stopping": generation_pb2.EARLY_STOPPING_NEVER,
    "repetition_penalty": 1.2,
    "eos_token_ids": {"ids": ENDS},
}
FULL = scores_pb2.ScoreSelection(logits=True, scores=True, full=True)


@pytest.fixture(scope="module")
def expected(tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [
            model.generate(
                torch.tensor([prompt]),
                max_new_tokens=12,
                do_sample=False,
                num_beams=4,
                num_return_sequences=2,
                length_penalty=0.5,
                early_stopping="never",
                repetition_penalty=1.2,
                eos_token_id=ENDS,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_scores=True,
                output_logits=True,
            )
            for prompt in PROMPTS
        ]


def sequences(expected):
    """Tokens, score and beams of every sequence, in the order of a response."""
    for prompt, out in zip(PROMPTS, expected, strict=True):
        for index, beams in enumerate(out.beam_indices):
            length = int((beams >= 0).sum())
            tokens = out.sequences[index, len(prompt) : len(prompt) + length].tolist()
            yield tokens, float(out.sequences_scores[index]), beams[:length].tolist(), out


def test_sequences_scores_and_beams_equal_hugging_faces(tiny_model, expected):
    response = generate(tiny_model, ragged(*PROMPTS), CONFIG, scores=FULL)
    for sequence, wanted in zip(response.sequences, sequences(expected), strict=True):
        tokens, score, beams, out = wanted
        assert list(sequence.token_ids) == tokens
        assert sequence.sequence_score == pytest.approx(score, rel=1e-5)
        assert list(sequence.beam_indices) == beams
        for t, position in enumerate(sequence.scores):
            scale = float(out.logits[t].abs().max())
            logits, scores = out.logits[t][beams[t]], out.scores[t][beams[t]]
            np.testing.assert_allclose(row(position.logits), logits, atol=1e-5 * scale, rtol=0)
            np.testing.assert_allclose(row(position.scores), scores, atol=1e-5 * scale, rtol=0)
    assert response.effective_config.early_stopping == generation_pb2.EARLY_STOPPING_NEVER
    assert ids(generate(tiny_model, ragged(*PROMPTS), response.effective_config)) == ids(response)
    assert load(tiny_model).kv_used_token_count == 0


def test_a_stream_sends_each_sequence_at_the_end(tiny_model, expected):
    tokens, finished, deltas = {}, {}, 0
    for event in stream(tiny_model, ragged(*PROMPTS), CONFIG):
        for delta in event.deltas.deltas:
            key = delta.prompt_index, delta.sequence_index
            tokens[key] = list(delta.token_ids)
            deltas += 1
        if event.HasField("finished"):
            sequence = event.finished.sequence
            finished[sequence.prompt_index, sequence.sequence_index] = sequence
    assert deltas == len(PROMPTS) * 2
    for key, (wanted, score, beams, _) in zip(sorted(tokens), sequences(expected), strict=True):
        assert tokens[key] == wanted
        assert finished[key].sequence_score == pytest.approx(score, rel=1e-5)
        assert list(finished[key].beam_indices) == beams


def test_a_search_that_is_cancelled_frees_all_rows(tiny_model):
    call = stream(tiny_model, ragged([5, 6]), CONFIG | {"max_new_tokens": 250})
    next(call)
    while load(tiny_model).running_sequence_count != 4:
        pass
    call.cancel()
    while load(tiny_model).kv_used_token_count:
        pass


def test_drawn_beams_are_reproduced_by_their_seed(tiny_model):
    config = CONFIG | {"do_sample": True, "temperature": 3.0, "top_k": 0}
    first = generate(tiny_model, ragged(*PROMPTS), config)
    assert [s.seed for s in first.sequences[:2]] == [first.effective_config.seed] * 2
    again = generate(tiny_model, ragged(PROMPTS[1]), config | {"seed": first.sequences[2].seed})
    assert ids(again) == ids(first)[2:]
    assert ids(first) != ids(generate(tiny_model, ragged(*PROMPTS), config))


OPTIONS = {
    "max_new_tokens": 12,
    "num_beams": 4,
    "num_return_sequences": 2,
    "length_penalty": 0.5,
    "early_stopping": "never",
    "repetition_penalty": 1.2,
    "eos_token_id": ENDS,
}


def assert_details(details, expected):
    for found, (tokens, score, beams, _) in zip(details, sequences(expected), strict=True):
        assert list(found.token_ids) == tokens
        assert found.sequence_score == pytest.approx(score, rel=1e-5)
        assert list(found.beam_indices) == beams


def test_the_client_has_the_keywords_and_results(tiny_model, expected):
    with Lockstep(model=tiny_model.service.address) as client:
        assert_details(client.model.generate(PROMPTS, **OPTIONS).details, expected)


async def test_the_asyncio_client_has_them_too(tiny_model, expected):
    async with AsyncLockstep(model=tiny_model.service.address) as client:
        assert_details((await client.model.generate(PROMPTS, **OPTIONS)).details, expected)


def test_a_session_refuses_beams(tiny_model):
    answer = refused(
        tiny_model.sessions.OpenSession,
        logits_session_service_pb2.OpenSessionRequest(
            prompt=ragged([5]), generation_config={"num_beams": 2}
        ),
    )
    assert answer.fields == ["generation_config.num_beams"]


def test_more_beams_than_rows_are_refused_with_the_limit(tiny_model):
    answer = refused(tiny_model.model.Generate, request(config={"num_beams": 33}))
    assert answer.fields == ["generation_config.num_beams"]
    assert "[1, 32]" in answer.message


def test_scores_of_beams_that_do_not_fit_one_message_are_refused_whatever_the_method(
    tiny_checkpoint, tmp_path
):
    config = {"num_beams": 4, "max_new_tokens": 200}
    assert 200 * 2 * 4 * VOCABULARY_SIZE < 2**20 < 4 * 200 * 2 * 4 * VOCABULARY_SIZE
    with model_process(tiny_checkpoint, tmp_path, "--max-response-bytes", str(2**20)) as service:
        call = stream(service, ragged([5]), config, scores=FULL)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert refusal(caught.value).reason == "RESPONSE_TOO_LARGE"
        asked = request(ragged([5]), config=config, scores=FULL)
        dry_run = model_info_service_pb2.ValidateRequestRequest(generate_request=asked)
        assert refused(service.info.ValidateRequest, dry_run).reason == "RESPONSE_TOO_LARGE"
        alone = stream(service, ragged([5]), config | {"num_beams": 1}, scores=FULL)
        assert sum(len(d.token_ids) for event in alone for d in event.deltas.deltas) > 0
