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


def test_obtaining_a_model_reads_its_weights_for_later_starts(model_folder: Path, cache_folder):
    command = [sys.executable, "-m", "checkpoints", str(model_folder)]
    subprocess.run(command, capture_output=True, check=True)
    assert str(model_folder / "model.safetensors") in (cache_folder / "digests.json").read_text()


@pytest.fixture
def waiting(tmp_path: Path):
    """The command that waits for a model, which is not there."""
    command = [sys.executable, "-m", "checkpoints", "--wait", str(tmp_path / "later")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def test_waiting_for_a_model_says_what_is_missing_and_ends_when_it_is_there(
    waiting: subprocess.Popen[str], tmp_path: Path, model_folder: Path
):
    assert f"Waiting for the model. The model '{tmp_path}/later'" in waiting.stderr.readline()
    model_folder.rename(tmp_path / "later")
    assert waiting.stdout.readline() == f"{tmp_path}/later\n"
    assert waiting.wait(30) == 0


def test_waiting_for_a_model_ends_on_a_signal(waiting: subprocess.Popen[str]):
    waiting.stderr.readline()
    waiting.terminate()
    assert waiting.wait(30) == 1


def test_nobody_waits_for_a_model_that_is_damaged(model_folder: Path):
    (model_folder / "config.json").write_text("{")
    command = [sys.executable, "-m", "checkpoints", "--wait", str(model_folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "config.json" in result.stderr
