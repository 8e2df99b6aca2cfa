"""A vocabulary that grows while the model serves, through both real services."""

import threading
import time

import grpc
import numpy as np
import pytest
from lockstep.v1 import (
    generation_pb2,
    model_info_service_pb2,
    model_service_pb2,
    vocabulary_admin_service_pb2,
    vocabulary_pb2,
)

from tests.checkpoint_factory import HIDDEN_SIZE, VOCABULARY_SIZE, make_checkpoint
from tests.integration.growing import running_tokenizer, state, with_values
from tests.integration.model_process import ModelProcess, model_process, ragged, refusal

CONFIG = {"max_new_tokens": 12, "eos_token_ids": {}}
PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    with running_tokenizer(tiny_checkpoint, folder) as tokenizer:
        yield tokenizer


@pytest.fixture(scope="module")
def model(tiny_checkpoint, tokenizer, tmp_path_factory):
    flags = ["--dtype", "fp32", "--tokenizer-address", tokenizer.address]
    with model_process(tiny_checkpoint, tmp_path_factory.mktemp("model"), *flags) as service:
        yield service


def generate(service: ModelProcess, prompt, vocabulary=None, config=CONFIG):
    request = model_service_pb2.GenerateRequest(
        prompt=ragged(prompt), generation_config=config, vocabulary=vocabulary
    )
    return service.model.Generate(request, timeout=30)


def info(service: ModelProcess) -> model_info_service_pb2.GetModelInfoResponse:
    return service.info.GetModelInfo(model_info_service_pb2.GetModelInfoRequest())


def test_a_model_follows_tokens_that_become_special_and_adds_no_row(tokenizer, model):
    tokenizer.add("<row>")
    before = generate(model, PROMPT, tokenizer.newest())
    rows = state(model)
    marks = [
        vocabulary_admin_service_pb2.TokenToAdd(
            token=vocabulary_pb2.AddedToken(content=content, special=True)
        )
        for content in ("a", "b")
    ]
    added = tokenizer.add_tokens(*marks, allow_text_changes=True)
    assert [one.becomes_special for one in added.results] == [True, True]
    prompt = [one.id for one in added.results]
    assert generate(model, prompt, added.vocabulary).vocabulary == added.vocabulary
    after = state(model)
    assert after.vocabulary.revision == rows.vocabulary.revision + 1
    assert after.vocabulary.size == rows.vocabulary.size
    assert after.added_rows_sha256 == rows.added_rows_sha256
    assert generate(model, PROMPT).sequences[0].token_ids == before.sequences[0].token_ids


def test_ids_that_must_not_be_generated_are_refused_where_a_request_asks_for_them(tokenizer, model):
    silent = tokenizer.add("<silent>")
    spoken = tokenizer.add("<spoken>", generable=True)
    ids = [silent.results[0].id, spoken.results[0].id]
    for allowed, effect in ((ids, "has no effect on"), (ids[:1], "leaves no token to choose but")):
        request = model_service_pb2.GenerateRequest(
            prompt=ragged(PROMPT),
            generation_config={"max_new_tokens": 2, "allowed_token_ids": {"ids": allowed}},
            vocabulary=spoken.vocabulary,
        )
        dry = model_info_service_pb2.ValidateRequestRequest(generate_request=request)
        calls = ((model.info.ValidateRequest, dry), (model.model.Generate, request))
        for call, message in calls:
            with pytest.raises(grpc.RpcError) as caught:
                call(message, timeout=30)
            refused = refusal(caught.value)
            assert refused.fields == ["generation_config.allowed_token_ids"]
            assert f"{effect} id {ids[0]}" in refused.message
    config = {"max_new_tokens": 2, "allowed_token_ids": {"ids": ids[1:]}}
    assert generate(model, PROMPT, spoken.vocabulary, config).sequences[0].token_ids == [ids[1]] * 2
    # A pipeline is the operator's own order; what it leaves is found out when it runs.
    arguments = f'{{"token_ids": [{ids[0]}]}}'
    pipeline = {"name": "allowed_token_ids", "arguments_json": arguments}
    config = {"max_new_tokens": 2, "processors": [pipeline]}
    (failed,) = generate(model, PROMPT, spoken.vocabulary, config).sequences
    assert "beside" in failed.error.message
    assert "not generable" in failed.error.message


def test_a_token_can_be_used_as_soon_as_it_was_added(tokenizer, model):
    before = generate(model, PROMPT)
    size = tokenizer.newest().size
    added = tokenizer.add("<tool>")
    new_id = added.results[0].id
    assert new_id == size
    after = generate(model, [*PROMPT, new_id], added.vocabulary)
    assert after.vocabulary == added.vocabulary
    assert len(after.sequences[0].token_ids) == 12
    again = generate(model, PROMPT, added.vocabulary)
    assert again.sequences[0].token_ids == before.sequences[0].token_ids
    assert state(model).vocabulary == added.vocabulary
    assert state(model).follower_connected


def test_a_stop_string_is_found_in_an_added_token(tokenizer, model):
    added = tokenizer.add("<stop here>", generable=True)
    config = CONFIG | {
        "forced_prefix": {"ids": [5, added.results[0].id, 6]},
        "stop_strings": ["stop"],
    }
    response = generate(model, PROMPT, added.vocabulary, config)
    assert response.sequences[0].token_ids == [5, added.results[0].id]
    assert response.sequences[0].stop_string == "stop"
    assert response.sequences[0].finish_reason == generation_pb2.FINISH_REASON_STOP_STRING


def test_an_end_that_a_revision_names_ends_requests_of_that_revision_only(tokenizer, model):
    added = tokenizer.add("<end>", "<other end>", generable=True)
    older, (end, other) = added.vocabulary, [result.id for result in added.results]
    config = {"max_new_tokens": 12, "forced_prefix": {"ids": [5, 6, end, 7, 8, other, 9]}}
    before = list(generate(model, PROMPT, older, config).sequences[0].token_ids)
    own = info(model).eos_token_ids
    first = tokenizer.give(vocabulary_pb2.SPECIAL_TOKEN_ROLE_EOS, end)
    ended = generate(model, PROMPT, first, config).sequences[0]
    assert list(ended.token_ids) == before[: before.index(end) + 1]
    assert ended.finish_reason == generation_pb2.FINISH_REASON_EOS_TOKEN
    assert info(model).eos_token_ids == [*own, end]
    assert info(model).default_generation_config.eos_token_ids.ids == [*own, end]
    second = tokenizer.give(vocabulary_pb2.SPECIAL_TOKEN_ROLE_EOS, other)
    got = [
        list(generate(model, PROMPT, vocabulary, config).sequences[0].token_ids)
        for vocabulary in (older, first, second)
    ]
    assert got == [before, before[: before.index(end) + 1], before[: before.index(other) + 1]]


def test_a_pad_that_a_revision_names_is_reported(tokenizer, model):
    pad = tokenizer.add("<pad>").results[0].id
    given = tokenizer.give(vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD, pad)
    generate(model, PROMPT, given)
    assert info(model).pad_token_id == pad


@pytest.mark.usefixtures("model")  # so that the tokenizer is ready
def test_vectors_that_the_model_cannot_take_are_refused_before_they_are_in_the_log(tokenizer):
    before = tokenizer.newest()
    with pytest.raises(grpc.RpcError) as caught:
        tokenizer.add_tokens(with_values("<narrow>", np.ones(HIDDEN_SIZE - 1)))
    answer = refusal(caught.value)
    assert (answer.reason, answer.info.metadata["field"]) == (
        "INVALID_FIELD",
        "tokens[0].input_values.shape",
    )
    assert tokenizer.newest() == before


def test_a_request_of_an_older_revision_does_not_see_newer_ids(tokenizer, model):
    older = tokenizer.newest()
    added = tokenizer.add("<newer>")
    generate(model, PROMPT, added.vocabulary)
    with pytest.raises(grpc.RpcError) as caught:
        generate(model, [added.results[0].id], older)
    answer = refusal(caught.value)
    assert answer.reason == "TOKEN_ID_OUT_OF_RANGE"
    assert answer.info.metadata["vocabularySize"] == str(older.size)


def test_running_streams_are_not_disturbed_by_growth(tokenizer, model):
    config = {"max_new_tokens": 200, "eos_token_ids": {}}
    expected = list(generate(model, PROMPT, config=config).sequences[0].token_ids)
    received: list[int] = []

    def read() -> None:
        request = model_service_pb2.GenerateRequest(prompt=ragged(PROMPT), generation_config=config)
        for event in model.model.GenerateStream(
            model_service_pb2.GenerateStreamRequest(request=request)
        ):
            for delta in event.deltas.deltas:
                received.extend(delta.token_ids)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(5):
        vocabulary = tokenizer.add(f"<t{number}>").vocabulary
        generate(model, PROMPT, vocabulary, {"max_new_tokens": 1})
    reader.join()
    assert received == expected


def test_a_restarted_model_has_the_same_rows(tokenizer, model, tiny_checkpoint, tmp_path):
    tokenizer.add("<a>", "<b>")
    newest = tokenizer.add("<c>").vocabulary
    generate(model, PROMPT, newest)
    flags = ["--dtype", "fp32", "--tokenizer-address", tokenizer.address]
    with model_process(tiny_checkpoint, tmp_path, *flags) as second:
        assert state(second).vocabulary == newest
        assert state(second).added_rows_sha256 == state(model).added_rows_sha256


def test_a_model_made_for_another_vocabulary_is_not_served(tokenizer, tmp_path):
    other = make_checkpoint(tmp_path / "other", vocab_size=VOCABULARY_SIZE - 8)
    flags = ["--tokenizer-address", tokenizer.address]
    with model_process(other, tmp_path, *flags, ready=False) as service:
        deadline = time.monotonic() + 30
        while not service.events("vocabulary_conflict"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (
            "start both with the same --model" in service.events("vocabulary_conflict")[0]["reason"]
        )
        assert service.health() == "NOT_SERVING"
