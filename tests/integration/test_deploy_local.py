"""The local stack, with real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.service import Service, ServiceFailed
from deploy.local.stack import Stack
from lockstep_client import Lockstep
from tests.checkpoint_factory import make_checkpoint
from tests.correctness.sizes import sizes

ROOT = Path(__file__).parents[2]
FREE_PORTS = ("--port", "0", "--health-port", "0", "--metrics-port", "0")
READY_S = 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), "llama")


def make_stack(folder: Path, model: Path) -> Stack:
    return Stack(
        folder,
        model=str(model),
        tokenizer_flags=(*FREE_PORTS, "--store", f"sqlite:///{folder}/vocabulary.db"),
        model_flags=FREE_PORTS,
    )


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def alive(processes: set[psutil.Process]) -> set[psutil.Process]:
    """Leaves out zombies: they wait for their parent, and hold nothing."""
    return {
        process
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    }


def test_a_stack_answers_and_leaves_no_process(tmp_path: Path, checkpoint: Path):
    before = children()
    stack = make_stack(tmp_path, checkpoint)
    with stack:
        started = children() - before
        assert len(started) >= 3  # tokenizer service, front, engine
        with Lockstep(tokenizer=stack.tokenizer.target, model=stack.model.target) as lockstep:
            answer = lockstep.generate("The capital of France is", max_new_tokens=4)
        assert answer.text
    assert stack.killed == []
    assert alive(started) == set()


def test_a_stack_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path, checkpoint: Path):
    (checkpoint_without_weights := tmp_path / "broken").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (checkpoint_without_weights / name).write_bytes((checkpoint / name).read_bytes())
    before = children()
    with (
        pytest.raises(ServiceFailed, match=r"has no model\.safetensors") as caught,
        make_stack(tmp_path, checkpoint_without_weights),
    ):
        pass
    assert "model_service ended with exit code" in str(caught.value)
    assert alive(children() - before) == set()


def test_a_service_that_dies_is_noticed(tmp_path: Path, checkpoint: Path):
    with make_stack(tmp_path, checkpoint) as stack:
        stack.check()
        (tokenizer,) = [
            process
            for process in psutil.Process().children()
            if "tokenizer_service" in process.cmdline() and str(checkpoint) in process.cmdline()
        ]
        tokenizer.kill()
        with pytest.raises(ServiceFailed, match="tokenizer_service ended with exit code -9"):
            check_until_it_raises(stack)


def check_until_it_raises(stack: Stack) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        stack.check()
        time.sleep(0.01)


STUBBORN = """
import json, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(child, start_new_session=True)
ports = {"port": 1, "health_port": 2, "metrics_port": 3}
print(json.dumps({"event": "listening", "host": "::1", **ports}), flush=True)
time.sleep(600)
"""


@pytest.mark.timeout(30)  # far less than the processes would live
def test_what_ignores_sigterm_is_killed_with_its_children(tmp_path: Path, monkeypatch):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = children()
    service = Service("stubborn", (), tmp_path)
    assert service.address(READY_S).port == 1
    started = children() - before
    assert len(started) == 2
    assert set(service.stop(timeout_s=0.3)) == {process.pid for process in started}
    psutil.wait_procs(started, timeout=5)
    assert alive(started) == set()


@pytest.fixture
def serving(tmp_path: Path, checkpoint: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs `serve` on free ports, by the variables that every setting has."""
    variables = {
        f"LOCKSTEP_{service}_{port}PORT": "0"
        for service in ("TOKENIZER", "MODEL")
        for port in ("", "HEALTH_", "METRICS_")
    }
    variables["LOCKSTEP_TOKENIZER_STORE"] = f"sqlite:///{tmp_path}/vocabulary.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.local", "serve", "--model", str(checkpoint)],
        cwd=tmp_path,
        env=os.environ | variables | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.terminate()  # killed, it would leave both services behind
    process.communicate(timeout=READY_S)


def test_a_second_serve_says_where_the_first_is_and_leaves_its_logs(serving, tmp_path: Path):
    said = []
    for line in serving.stderr:
        said.append(line)
        if "Ctrl-C stops both" in line:
            break
    text = "".join(said)
    assert str(tmp_path / "vocabulary.db") in text.replace("\n", "")
    assert "vocab reset --model" in text
    logs = tmp_path / ".lockstep" / "serve"
    before = {path.name: path.read_bytes() for path in logs.glob("*.out")}
    second = subprocess.run(
        serving.args,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    said_again = second.stderr.replace("\n", " ")
    assert "Lockstep is up already" in said_again
    ports = [json.loads(before[f"{name}_service.out"])["port"] for name in ("tokenizer", "model")]
    assert all(f":{port}" in said_again for port in ports)
    assert {path.name: path.read_bytes() for path in logs.glob("*.out")} == before
    assert serving.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_serving_ends_on_a_signal_with_both_services(serving, number):
    assert serving.stderr is not None
    for line in serving.stderr:
        if "Ctrl-C stops both" in line:
            break
    started = set(psutil.Process(serving.pid).children(recursive=True))
    assert len(started) >= 3
    serving.send_signal(number)
    assert serving.wait(READY_S) == 0
    assert alive(started) == set()


@pytest.mark.default_model
@sizes("most_s", ci=300, full=60)  # the machine of a full run is quiet
def test_the_demo_knows_the_capital_of_france(most_s):
    before = children()
    result = subprocess.run(
        [sys.executable, "-m", "deploy.local", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=most_s,
    )
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout
    assert re.search(r"First piece after \d+ ms", result.stderr)
    assert "no process is left" in result.stderr
    assert alive(children() - before) == set()


def test_the_example_of_the_readme_runs(tmp_path: Path, checkpoint: Path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with make_stack(tmp_path, checkpoint) as stack:
        example = example.replace("localhost:50051", stack.tokenizer.target)
        example = example.replace("localhost:50052", stack.model.target)
        result = subprocess.run(
            [sys.executable, "-c", example], capture_output=True, text=True, check=False
        )
    assert result.returncode == 0, result.stderr
    new_ids = json.loads(result.stdout.splitlines()[-1])
    assert len(new_ids) == 1
