"""Calls that tests of a model service share, and what it says of itself."""

import json
import urllib.request

import grpc
import pytest
from lockstep.v1 import model_info_service_pb2, model_service_pb2

from tests.integration.model_process import ModelProcess, ragged, refusal

ENDLESS = {"max_new_tokens": 250, "eos_token_ids": {}}


def stream(service: ModelProcess, config=ENDLESS, prompt=None):
    """Begins a generation whose events are read one by one."""
    request = model_service_pb2.GenerateRequest(
        prompt=prompt or ragged([5, 6]), generation_config=config
    )
    return service.model.GenerateStream(
        model_service_pb2.GenerateStreamRequest(request=request), timeout=60
    )


def info(service: ModelProcess):
    """Asks for the description of the model, as small a call as there is."""
    return service.info.GetModelInfo(model_info_service_pb2.GetModelInfoRequest())


def refused(call, *arguments, **options):
    """Makes a call that must fail, and returns what its status says."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return refusal(caught.value)


def metrics(service: ModelProcess) -> str:
    """Reads the metrics as Prometheus does."""
    with urllib.request.urlopen(service.service.metrics_url, timeout=10) as response:
        return response.read().decode()


def lines_of(service: ModelProcess) -> list[dict]:
    """Reads the log of a server that has ended: every line is JSON."""
    assert service.process.poll() is not None
    return [json.loads(line) for line in service.log().splitlines()]
