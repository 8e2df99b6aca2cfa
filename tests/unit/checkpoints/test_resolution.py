import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import CheckpointError, resolve


@pytest.mark.parametrize(
    "model",
    ["no-such-model", "/no/such/folder", "./folder", "~/folder", "org/name.gguf", "", "a/b/c"],
)
def test_a_name_that_is_nothing_lists_what_there_could_be(model):
    with pytest.raises(CheckpointError) as caught:
        resolve(model, need="model")
    message = str(caught.value)
    assert "smollm2-135m-instruct" in message
    assert "org/name" in message
    assert "\n" not in message


def test_the_old_name_of_a_model_suggests_the_one_with_an_owner():
    with pytest.raises(CheckpointError, match=r"Did you mean openai-community/gpt2\?"):
        resolve("gpt2", need="model")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        resolve(str(path), need="model")


def test_what_exists_as_a_path_is_no_hub_id(model_folder: Path, monkeypatch):
    (model_folder.parent / "org").mkdir()
    target = model_folder.rename(model_folder.parent / "org" / "name")
    monkeypatch.chdir(model_folder.parent)
    assert resolve("org/name", need="model").folder == target


def test_without_a_network_a_hub_id_says_what_to_do(tmp_path: Path):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "checkpoints", "org/name@v1"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "hf download org/name" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_command_prints_the_folder_and_nothing_else(model_folder: Path):
    command = [sys.executable, "-m", "checkpoints", str(model_folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == (f"{model_folder}\n", "")
