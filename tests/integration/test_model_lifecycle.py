"""How a model service stops, drains and dies."""

import os
import queue
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from lockstep.v1 import logits_session_service_pb2, model_admin_service_pb2, model_info_service_pb2

from lockstep_client import Lockstep
from lockstep_client.exceptions import MemoryExhausted
from tests.fakes.short_engine import POISON
from tests.integration.model_calls import info, metrics, refused, stream
from tests.integration.model_process import counting_process, model_process, ragged

SERVER_OF_ENGINES = "tests.fakes.counting_server"


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
