"""How a model service starts, stops, drains and dies."""

import contextlib
import json
import os
import pickle
import pty
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from lockstep.v1 import (
    logits_session_service_pb2,
    model_admin_service_pb2,
    model_info_service_pb2,
    model_service_pb2,
)
from prometheus_client.parser import text_string_to_metric_families

from lockstep_client import Lockstep
from lockstep_client.exceptions import MemoryExhausted
from model_service.front.sessions.replica import public_part
from tests.correctness.sizes import sizes
from tests.fakes.short_engine import POISON
from tests.integration.model_process import (
    ModelProcess,
    counting_process,
    model_process,
    ragged,
    refusal,
)

SERVER_OF_ENGINES = "tests.fakes.counting_server"
ENDLESS = {"max_new_tokens": 250, "eos_token_ids": {}}


def stream(service: ModelProcess, config=ENDLESS, prompt=None):
    request = model_service_pb2.GenerateRequest(
        prompt=prompt or ragged([5, 6]), generation_config=config
    )
    return service.model.GenerateStream(
        model_service_pb2.GenerateStreamRequest(request=request), timeout=60
    )


def info(service: ModelProcess):
    return service.info.GetModelInfo(model_info_service_pb2.GetModelInfoRequest())


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return refusal(caught.value)


def metrics(service: ModelProcess) -> str:
    with urllib.request.urlopen(service.service.metrics_url, timeout=10) as response:
        return response.read().decode()


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


def exit_of(service: ModelProcess) -> str:
    """Waits for a server that cannot serve to end, and returns the reason it logs last."""
    assert service.process.wait(60) == 1
    lines = lines_of(service)
    assert lines[-1]["event"] == "model_not_served"
    assert not [line for line in lines if "exception" in line]
    reason = lines[-1]["reason"]
    assert "\n" not in reason
    return reason


def lines_of(service: ModelProcess) -> list[dict]:
    """Reads the log of a server that has ended: every line is JSON."""
    assert service.process.poll() is not None
    return [json.loads(line) for line in service.log().splitlines()]


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


def test_after_sigterm_running_streams_are_finished_and_new_calls_refused(
    tiny_checkpoint, tmp_path
):
    with model_process(tiny_checkpoint, tmp_path) as service:
        (engine,) = psutil.Process(service.process.pid).children(recursive=True)
        events = stream(service)
        next(events)
        service.process.terminate()
        service.wait_for_health("NOT_SERVING")
        answer = refused(info, service)
        assert answer.reason == "DRAINING"
        assert "shutting down" in answer.message
        assert answer.retry
        assert [event.WhichOneof("event") for event in events][-1] == "completed"
        assert service.process.wait(20) == 0
        assert not engine.is_running()


def test_the_engine_does_not_outlive_a_front_that_is_killed(tiny_checkpoint, tmp_path):
    with model_process(tiny_checkpoint, tmp_path) as service:
        engine = psutil.Process(service.engine_pid())
        service.process.kill()
        service.process.wait(10)
        engine.wait(10)


def test_the_death_of_the_engine_fails_calls_and_ends_the_server(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path) as service:
        events = stream(service)
        next(events)
        os.kill(service.engine_pid(), signal.SIGKILL)
        answer = refused(list, events)
        assert answer.code is grpc.StatusCode.UNAVAILABLE
        assert answer.reason == "ENGINE_LOST"
        assert answer.retry
        assert service.process.wait(20) == 1
        (lost,) = service.events("engine_lost")
        assert lost["reason"] == "The engine ended with signal 9."


def test_memory_that_runs_out_fails_one_of_six_calls_and_nothing_else(tiny_checkpoint, tmp_path):
    flags = ("--decode-graphs", "off")
    engine = {"ENGINE_MODULE": "tests.fakes.short_engine"}
    with (
        model_process(
            tiny_checkpoint, tmp_path, *flags, module=SERVER_OF_ENGINES, environment=engine
        ) as service,
        Lockstep(model=service.service.address) as ls,
        ls.model.open_session([[5, 6]], max_length=60) as session,
        ThreadPoolExecutor(6) as pool,
    ):
        suppressed = {"suppress_tokens": [POISON], "max_new_tokens": 100, "min_new_tokens": 100}
        prompts = [[5, 6, 7 + index] for index in range(6)]
        calls = [pool.submit(ls.model.generate, [prompt], **suppressed) for prompt in prompts[:5]]
        with pytest.raises(MemoryExhausted):
            ls.model.generate([[5, POISON]], **suppressed).raise_for_errors()
        assert [len(call.result().sequences[0]) for call in calls] == [100] * 5
        with pytest.raises(MemoryExhausted) as caught:
            session.step([[POISON]])
        assert caught.value.retry_delay_s
        session.step([[8]])
        assert session.token_ids() == [[5, 6, 8]]
        assert service.process.poll() is None
        assert len(service.events("engine_started")) == 1


def test_an_engine_that_hangs_ends_the_server(tiny_checkpoint, tmp_path):
    flags = ("--engine-stall-timeout-s", "1")
    with counting_process(tiny_checkpoint, tmp_path, *flags) as service:
        os.kill(service.engine_pid(), signal.SIGSTOP)
        answer = refused(list, stream(service))
        assert answer.reason == "ENGINE_LOST"
        assert service.process.wait(20) == 1


def test_an_engine_that_hangs_while_it_has_nothing_to_do_ends_the_server_as_well(
    tiny_checkpoint, tmp_path
):
    flags = ("--engine-stall-timeout-s", "1")
    with counting_process(tiny_checkpoint, tmp_path, *flags) as service:
        os.kill(service.engine_pid(), signal.SIGSTOP)
        assert service.process.wait(30) == 1
        (lost,) = service.events("engine_lost")
        assert lost["reason"] == "The engine does not answer."


@pytest.mark.parametrize("start", [counting_process, model_process])
def test_an_engine_that_has_nothing_to_do_is_not_taken_for_one_that_hangs(
    tiny_checkpoint, tmp_path, start
):
    with start(tiny_checkpoint, tmp_path, "--engine-stall-timeout-s", "5") as service:
        time.sleep(10)  # asked after 2.5 s without a report, and lost after 5 s without an answer
        assert service.health() == "SERVING"
        assert not service.events("engine_lost")


def test_an_operator_can_drain_and_resume(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path) as service:
        events = stream(service)
        next(events)
        drained = service.admin.Drain(model_admin_service_pb2.DrainRequest())
        assert drained.running_sequence_count == 1
        service.wait_for_health("NOT_SERVING")
        answer = refused(lambda: list(stream(service)))
        assert (answer.reason, answer.retry) == ("DRAINING", True)
        assert "operator" in answer.message
        assert 'rejections_total{model_name="tiny",reason="paused"} 1.0' in metrics(service)
        assert info(service).architecture  # what only reads still answers
        assert [event.WhichOneof("event") for event in events][-1] == "completed"
        service.admin.Resume(model_admin_service_pb2.ResumeRequest())
        service.wait_for_health("SERVING")
        assert list(stream(service, {"max_new_tokens": 1}))


def running_rows(service) -> float:
    """Rows that the engine is working on, by the service's own gauge."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics(service).splitlines()
        if line.startswith("lockstep_model_requests_running{")
    )


def wait_until_rows_were_freed(service) -> None:
    """Waits until the gauge, which follows the engine, has shown rows and shows none."""
    deadline = time.monotonic() + 30
    for shown in (True, False):
        while (running_rows(service) > 0) is not shown:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_client_that_does_not_read_is_cut_off_and_its_rows_are_freed(tiny_checkpoint, tmp_path):
    flags = ("--stream-stall-timeout-s", "1", "--stream-buffer-bytes", str(2**20))
    with counting_process(tiny_checkpoint, tmp_path, *flags) as service:
        request = model_service_pb2.GenerateRequest(
            prompt=ragged(*[[5]] * 64),
            generation_config=ENDLESS,
            scores={"logits": True, "scores": True, "full": True},
        )
        events = service.model.GenerateStream(
            model_service_pb2.GenerateStreamRequest(request=request), timeout=60
        )
        next(events)
        next(events)  # the first tokens; then nothing is read and flow control stops the writes
        wait_until_rows_were_freed(service)
        list(stream(service, {"max_new_tokens": 1}))  # others go on
        assert refused(list, events).reason == "SLOW_CONSUMER"
        assert_slow_consumer_recorded(service)


def test_a_client_that_leaves_without_ever_reading_was_a_slow_consumer(tiny_checkpoint, tmp_path):
    flags = ("--stream-buffer-bytes", str(2**20))  # less than its rows come to
    with counting_process(tiny_checkpoint, tmp_path, *flags) as service:
        request = model_service_pb2.GenerateRequest(
            prompt=ragged(*[[5]] * 64),
            generation_config=ENDLESS,
            scores={"logits": True, "scores": True, "full": True},
        )
        events = service.model.GenerateStream(
            model_service_pb2.GenerateStreamRequest(request=request), timeout=60
        )
        next(events)
        next(events)
        wait_until_rows_were_freed(service)
        events.cancel()
        assert_slow_consumer_recorded(service)


def assert_slow_consumer_recorded(service):
    """Waits for what the log and the metrics say of the only stream that failed."""
    deadline = time.monotonic() + 10
    while not (failed := [line for line in service.events("call") if line["code"] != "OK"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (line,) = failed
    assert (line["code"], line["reason"]) == ("RESOURCE_EXHAUSTED", "SLOW_CONSUMER")
    text = metrics(service)
    assert 'lockstep_calls_failed_total{reason="SLOW_CONSUMER"} 1.0' in text
    (handled,) = re.findall(r'handled_total{grpc_code="RES.*,grpc_method="GenerateS.* (.*)', text)
    assert handled == "1.0"
    sequences = r'requests_finished_total{.*finish_reason="error",.*operation="generate".* (.*)'
    assert re.findall(sequences, text) == ["64.0"]


def test_metrics_tell_what_was_done(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path) as service:
        list(stream(service, {"max_new_tokens": 7, "eos_token_ids": {}}))
        text = metrics(service)
        model = 'model_name="tiny"'
        assert f"lockstep_model_generated_tokens_total{{{model}}} 7.0" in text
        generate = f'{model},operation="generate"'
        assert f"lockstep_model_prompt_tokens_total{{{generate}}} 2.0" in text
        finished = f'requests_finished_total{{finish_reason="length",{generate}}} 1.0'
        assert finished in text
        assert f"lockstep_model_time_to_first_token_seconds_count{{{generate}}} 1.0" in text
        assert f"lockstep_model_request_generated_tokens_sum{{{generate}}} 7.0" in text
        assert f"lockstep_model_inter_token_latency_seconds_count{{{generate}}} 6.0" in text
        assert f"lockstep_model_vocabulary_size{{{model}}} 320.0" in text
        assert f"lockstep_model_engine_up{{{model}}} 1.0" in text


def test_each_step_of_a_session_is_counted_and_timed_also_in_a_stream(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path) as service:
        opened = service.sessions.OpenSession(
            logits_session_service_pb2.OpenSessionRequest(prompt=ragged([5, 6]))
        )
        step = {"session_id": opened.session_id, "rows": [{"ids": [7]}]}
        service.sessions.Step(logits_session_service_pb2.StepRequest(**step))
        requests = [logits_session_service_pb2.StepStreamRequest(step=step)] * 3
        assert len(list(service.sessions.StepStream(iter(requests)))) == 3
        text = metrics(service)
        while len(calls := service.events("call")) < 3:  # a line is written after its answer
            time.sleep(0.02)
        streamed = calls[-1]
        assert (streamed["steps"], streamed["step_tokens"]) == (3, 3)
        assert {line["session"] for line in calls} == {
            public_part(opened.session_id)
        }  # not all: a secret
        assert opened.session_id not in service.log()
        for method, count in (("step", 1), ("step_stream", 3)):
            labels = f'method="{method}",model_name="tiny"'
            assert f"lockstep_model_session_step_seconds_count{{{labels}}} {count}.0" in text
        assert 'lockstep_model_session_step_tokens_total{model_name="tiny"} 4.0' in text


def test_the_process_of_the_engine_shows_what_it_takes(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path) as service:
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(metrics(service))
            for sample in family.samples
        }
    own, engine = "process_resident_memory_bytes", "lockstep_model_engine_process"
    assert samples[f"{engine}_resident_memory_bytes"] not in (0, samples[own])
    assert samples[f"{engine}_cpu_seconds_total"] > 0
    assert samples["lockstep_model_engine_process_threads"] >= 1


def test_no_id_of_a_prompt_is_in_the_log(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path, "--log-level", "debug") as service:
        list(stream(service, {"max_new_tokens": 3}, ragged([271, 272, 273])))
        refused(lambda: list(stream(service, prompt=ragged([271, 987654321]))))
        log = service.log()
        assert re.search(r"271\D+272\D+273", log) is None
        assert "987654321" not in log


def test_a_port_that_is_taken_ends_the_server(tiny_model, tiny_checkpoint, tmp_path):
    port = tiny_model.service.address.rpartition(":")[2]
    with pytest.raises(RuntimeError, match="cannot_start"):  # noqa: SIM117
        with model_process(tiny_checkpoint, tmp_path, "--port", port):
            pass


def test_many_calls_can_be_cancelled_at_once(tiny_model):
    calls = [stream(tiny_model) for _ in range(40)]
    started = threading.Barrier(2, timeout=30)

    def read_all() -> None:
        for call in calls:
            next(call)
        started.wait()

    threading.Thread(target=read_all).start()
    started.wait()
    for call in calls:
        call.cancel()
    deadline = time.monotonic() + 5
    request = model_info_service_pb2.GetLoadRequest()
    while tiny_model.info.GetLoad(request).running_sequence_count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_step_stream_that_falls_silent_does_not_hold_the_shutdown(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path) as service:
        opened = service.sessions.OpenSession(
            logits_session_service_pb2.OpenSessionRequest(prompt=ragged([5]))
        )
        requests: queue.Queue = queue.Queue()
        answers = service.sessions.StepStream(iter(requests.get, None))
        for token in range(3):
            requests.put(step_of(opened.session_id, token))
            next(answers)
        service.process.terminate()
        service.wait_for_health("NOT_SERVING")
        requests.put(step_of(opened.session_id, 3))  # one that goes on is served
        assert next(answers).step.rows[0].position == 5
        answer = refused(next, answers)
        assert answer.code is grpc.StatusCode.UNAVAILABLE
        assert answer.reason == "DRAINING"
        assert answer.retry
        assert service.process.wait(10) == 0


def test_sessions_step_on_while_the_server_drains_and_no_new_one_is_opened(
    tiny_checkpoint, tmp_path
):
    with counting_process(tiny_checkpoint, tmp_path) as service:
        opening = logits_session_service_pb2.OpenSessionRequest(prompt=ragged([5]))
        session_id = service.sessions.OpenSession(opening).session_id
        service.sessions.OpenSession(opening)  # left behind: nobody waits for it
        service.process.terminate()
        service.wait_for_health("NOT_SERVING")
        started = time.monotonic()
        for token in range(30):  # 3 s
            request = step_of(session_id, token).step
            answer, call = service.sessions.Step.with_call(request)
            assert answer.rows[0].position == token + 2
            left_ms = int(dict(call.trailing_metadata())["x-draining-ms"])
            assert 0 < left_ms <= 60_000
            time.sleep(0.1)
        assert left_ms < 60_000 - 1000 * (time.monotonic() - started) + 2000
        fork = logits_session_service_pb2.ForkRequest(session_id=session_id, count=1)
        for refused_call in (service.sessions.OpenSession, opening), (service.sessions.Fork, fork):
            answer = refused(*refused_call)
            assert (answer.reason, answer.retry) == ("DRAINING", True)
        close = logits_session_service_pb2.CloseSessionRequest(session_id=session_id)
        assert service.sessions.CloseSession(close).token_count == 31
        assert service.process.wait(10) == 0


def test_a_session_that_steps_for_ever_is_ended_with_the_grace_period(tiny_checkpoint, tmp_path):
    with counting_process(tiny_checkpoint, tmp_path, "--drain-timeout-s", "1") as service:
        opening = logits_session_service_pb2.OpenSessionRequest(prompt=ragged([5]))
        session_id = service.sessions.OpenSession(opening).session_id
        service.process.terminate()
        service.wait_for_health("NOT_SERVING")
        steps = 0

        def step_for_ever() -> None:
            nonlocal steps
            while True:
                service.sessions.Step(step_of(session_id, 5).step)
                steps += 1
                time.sleep(0.02)

        assert refused(step_for_ever).reason == "DRAINING"
        assert steps > 0
        assert service.process.wait(10) == 0


def step_of(session_id: str, token: int):
    row = logits_session_service_pb2.RowStep(ids=[token])
    request = logits_session_service_pb2.StepRequest(session_id=session_id, rows=[row])
    return logits_session_service_pb2.StepStreamRequest(step=request)


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
