"""How a model service starts, and why it does not."""

import contextlib
import json
import os
import pickle
import pty
import shutil
import subprocess
import sys
import time

import grpc
import psutil
import pytest
from lockstep.v1 import model_info_service_pb2

from tests.correctness.sizes import sizes
from tests.integration.model_calls import info, lines_of, metrics, refused, stream
from tests.integration.model_process import ModelProcess, model_process


def exit_of(service: ModelProcess) -> str:
    """Waits for a server that cannot serve to end, and returns the reason it logs last."""
    assert service.process.wait(60) == 1
    lines = lines_of(service)
    assert lines[-1]["event"] == "model_not_served"
    assert not [line for line in lines if "exception" in line]
    reason = lines[-1]["reason"]
    assert "\n" not in reason
    return reason


def test_a_server_that_loads_says_so_and_can_be_retried(tiny_checkpoint, tmp_path):
    with model_process(tiny_checkpoint, tmp_path, ready=False) as service:
        answer = refused(info, service)
        assert answer.code is grpc.StatusCode.UNAVAILABLE
        assert answer.reason == "LOADING"
        assert answer.retry
        assert service.health() == "NOT_SERVING"
        assert service.health("liveness") == "SERVING"
        service.wait_for_health("SERVING")
        assert info(service).architecture == "LlamaForCausalLM"


def test_a_server_that_is_stopped_while_it_loads_ends_at_once(tiny_checkpoint, tmp_path):
    with model_process(tiny_checkpoint, tmp_path, ready=False) as service:
        engine = psutil.Process(service.engine_pid())
        service.process.terminate()
        assert service.process.wait(10) == 0
        assert not engine.is_running()


def test_a_model_that_does_not_exist_ends_the_server_with_the_reason(tmp_path):
    with model_process(tmp_path / "nowhere", tmp_path, ready=False) as service:
        assert "nowhere" in exit_of(service)


@sizes("attempts", 1, 10)  # the engine ends while the front writes to it
def test_a_model_that_the_engine_refuses_leaves_nothing_behind_the_reason(
    tiny_checkpoint, tmp_path, attempts
):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "refused")
    (folder / "generation_config.json").write_text(json.dumps({"penalty_alpha": 0.6}))
    for _ in range(attempts):
        with model_process(folder, tmp_path, ready=False) as service:
            assert "penalty_alpha" in exit_of(service)


@pytest.mark.parametrize(
    "graphs",
    ["off", pytest.param("auto", marks=[pytest.mark.full, pytest.mark.timeout(1800)])],
    ids=["plain", "compiled"],
)
def test_every_line_is_json_and_loading_reaches_its_end(tiny_checkpoint, tmp_path, graphs):
    flags = ("--decode-graphs", graphs, "--compile-cache", str(tmp_path / "compiled"))
    with model_process(tiny_checkpoint, tmp_path, *flags) as service:
        deadline = time.monotonic() + 1700  # compiling takes what time is left over
        while graphs == "auto" and not any(
            event["state"] in ("ready", "unavailable") for event in service.events("decode_graphs")
        ):
            assert time.monotonic() < deadline, service.log()
            time.sleep(0.5)
        name = "lockstep_model_load_progress_ratio"
        progress = [line for line in metrics(service).splitlines() if line.startswith(name)]
        assert len(progress) == 2
        assert all(line.endswith(" 1.0") for line in progress), progress
    lines = lines_of(service)
    assert "ready" in {line["event"] for line in lines}
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_first_start_says_why_steps_are_slower_and_until_when(tiny_checkpoint, tmp_path):
    cache = tmp_path / "compiled"
    flags = ("--decode-graphs", "auto", "--compile-cache", str(cache))
    with model_process(tiny_checkpoint, tmp_path, *flags) as service:
        deadline = time.monotonic() + 60
        while not (
            reasons := [e["reason"] for e in service.events("decode_graphs") if e["reason"]]
        ):
            assert time.monotonic() < deadline, service.log()
            time.sleep(0.1)
        assert 'lockstep_model_decode_graphs{model_name="tiny",state="compiling"} 1.0' in metrics(
            service
        )
    assert reasons[-1].startswith(f"{cache} has no compiled code for this model")
    assert "part 1 of" in reasons[-1]


def test_a_pickle_is_refused_with_the_way_out(tiny_checkpoint, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((tiny_checkpoint / name).read_bytes())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))
    with model_process(folder, tmp_path, ready=False) as service:
        assert "safetensors" in exit_of(service)


def test_a_broken_checkpoint_ends_the_server_with_the_reason(tiny_checkpoint, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in tiny_checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with model_process(folder, tmp_path, ready=False) as service:
        assert exit_of(service)


def test_a_model_whose_own_stop_strings_cannot_be_found_is_refused(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "stopping")
    (folder / "generation_config.json").write_text(json.dumps({"stop_strings": ["x"]}))
    with model_process(folder, tmp_path, ready=False) as service:
        assert "--tokenizer-address" in exit_of(service)


def test_a_port_that_is_taken_ends_the_server(tiny_model, tiny_checkpoint, tmp_path):
    port = tiny_model.service.address.rpartition(":")[2]
    with pytest.raises(RuntimeError, match="cannot_start"):  # noqa: SIM117
        with model_process(tiny_checkpoint, tmp_path, "--port", port):
            pass


def test_a_server_whose_steps_cannot_be_compiled_serves_and_says_why(tiny_checkpoint, tmp_path):
    environment = {
        "LOCKSTEP_CACHE": str(tmp_path / "cache"),
        "CXX": str(tmp_path / "no_such_compiler"),
    }
    flags = ("--decode-graphs", "auto")
    with model_process(tiny_checkpoint, tmp_path, *flags, environment=environment) as service:
        assert (
            info(service).decode_graph_state == model_info_service_pb2.DECODE_GRAPH_STATE_COMPILING
        )
        deadline = time.monotonic() + 100
        while (
            info(service).decode_graph_state == model_info_service_pb2.DECODE_GRAPH_STATE_COMPILING
        ):
            assert time.monotonic() < deadline, service.log()
            next(iter(stream(service, {"max_new_tokens": 1})))
            time.sleep(0.2)
        about = info(service)
        assert about.decode_graph_state == model_info_service_pb2.DECODE_GRAPH_STATE_UNAVAILABLE
        assert "no_such_compiler" in about.decode_graph_reason
        assert 'lockstep_model_decode_graphs{model_name="tiny",state="unavailable"} 1.0' in (
            metrics(service)
        )


@pytest.mark.parametrize("module", ["tokenizer_service", "model_service"])
def test_a_terminal_shows_in_a_sentence_why_a_service_cannot_start(module):
    ports = ["--port=0", "--health-port=0", "--metrics-port=0"]
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--model=gpt2", *ports], stdout=subprocess.PIPE, stderr=end
    )
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while data := os.read(terminal, 4096):
            shown += data
    os.close(terminal)
    process.communicate()
    assert process.returncode == 1
    last = shown.decode().splitlines()[-1]
    assert last.startswith(f"python -m {module}: The model 'gpt2' was not found")
