"""A revision that a model cannot apply, and its tokenizer service could not know that."""

import shutil
import time

import grpc
import numpy as np
import pytest
from lockstep.v1 import model_info_service_pb2, model_service_pb2

from tests.checkpoint_factory import HIDDEN_SIZE
from tests.integration.growing import running_tokenizer, state, with_values
from tests.integration.model_process import ModelProcess, model_process, ragged, refusal

PROMPT = [5, 6, 7]
REASON = f"input_values has 3 values, but a row of this model has {HIDDEN_SIZE}"


def generate(service: ModelProcess, vocabulary) -> list[int]:
    request = model_service_pb2.GenerateRequest(
        prompt=ragged(PROMPT),
        generation_config={"max_new_tokens": 5, "eos_token_ids": {}},
        vocabulary=vocabulary,
    )
    return list(service.model.Generate(request, timeout=30).sequences[0].token_ids)


def test_it_is_not_applied_said_and_older_revisions_are_served(tiny_checkpoint, tmp_path):
    bare = tmp_path / "tiny"  # a tokenizer alone: without config.json nobody knows the width
    bare.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_checkpoint / name, bare)
    with running_tokenizer(bare, tmp_path) as tokenizer:
        flags = ["--dtype", "fp32", "--tokenizer-address", tokenizer.address]
        with model_process(tiny_checkpoint, tmp_path, *flags) as model:
            good = tokenizer.add("<good>").vocabulary
            before, rows = generate(model, good), state(model).added_rows_sha256
            narrow = tokenizer.add_tokens(with_values("<narrow>", np.ones(3))).vocabulary
            later = tokenizer.add("<later>").vocabulary
            for vocabulary in (narrow, later):
                with pytest.raises(grpc.RpcError) as caught:
                    generate(model, vocabulary)
                assert refusal(caught.value).reason == "VOCABULARY_BEHIND"
            deadline = time.monotonic() + 30
            while not model.events("vocabulary_conflict"):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert REASON in model.events("vocabulary_conflict")[0]["reason"]
            time.sleep(2.0)  # it is told again and again, and says so once
            assert len(model.events("vocabulary_conflict")) == 1
            info = model.info.GetModelInfo(model_info_service_pb2.GetModelInfoRequest())
            assert info.vocabulary == state(model).vocabulary == good
            assert REASON in info.vocabulary_following.reason
            assert state(model).added_rows_sha256 == rows
            assert generate(model, good) == before
            assert model.health() == "SERVING"
