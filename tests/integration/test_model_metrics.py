"""What a model service counts and times, and what its log leaves out."""

import re
import time

from lockstep.v1 import logits_session_service_pb2
from prometheus_client.parser import text_string_to_metric_families

from model_service.front.sessions.replica import public_part
from tests.integration.model_calls import metrics, refused, stream
from tests.integration.model_process import counting_process, ragged


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
