"""What `lockstep info` says of services that are not in lockstep."""

import json
import time

import pytest
from typer.testing import CliRunner

from lockstep_client import Lockstep
from lockstep_client._cli import app
from tests.integration.growing import running_tokenizer
from tests.integration.holding_proxy import holding_proxy
from tests.integration.model_process import counting_process
from tests.tokenizer_factory import make_tokenizer_folder


@pytest.fixture
def tokenizer(tiny_checkpoint, tmp_path):
    with running_tokenizer(tiny_checkpoint, tmp_path) as tokenizer:
        yield tokenizer


def info(tokenizer: str, model: str, *flags: str):
    runner = CliRunner(env={"LOCKSTEP_TOKENIZER": tokenizer, "LOCKSTEP_MODEL": model})
    return runner.invoke(app, ["info", *flags])


def test_info_fails_while_the_model_service_follows_nobody(tokenizer, tiny_model):
    assert info(tokenizer.address, tiny_model.service.address).exit_code == 0
    tokenizer.add("<one>")
    result = info(tokenizer.address, tiny_model.service.address)
    assert result.exit_code == 1
    assert "follows no tokenizer service" in result.stderr
    assert "start it with --tokenizer-address" in result.stderr
    assert "behind by 1 revision." in result.stderr


def test_info_fails_when_the_services_have_other_tokenizers(tiny_model, tmp_path):
    with running_tokenizer(make_tokenizer_folder(tmp_path / "other"), tmp_path) as other:
        result = info(other.address, tiny_model.service.address, "--json")
    assert result.exit_code == 1
    assert "the vocabulary of another tokenizer, tiny, not of other" in result.stderr
    assert json.loads(result.stdout)["drift"]["cause"] == "another_tokenizer"


def test_info_fails_while_the_model_service_is_behind(tiny_checkpoint, tokenizer, tmp_path):
    with holding_proxy(tokenizer.address) as proxy:
        flags = ["--tokenizer-address", proxy.address]
        with counting_process(tiny_checkpoint, tmp_path, *flags) as model:
            proxy.hold()
            tokenizer.add("<one>")
            tokenizer.add("<two>")
            result = info(tokenizer.address, model.service.address, "--json")
            assert result.exit_code == 1
            assert "The model service is behind by 2 revisions" in result.stderr
            drift = json.loads(result.stdout)["drift"]
            assert (drift["cause"], drift["revisions"]) == ("model_behind", 2)
            proxy.release()
            deadline = time.monotonic() + 30
            while info(tokenizer.address, model.service.address).exit_code != 0:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with Lockstep(model=model.service.address) as client:
                following = client.model.info().vocabulary_following
            assert (following.state, following.lag_revision_count) == ("following", 0)
