"""A client with a counting engine behind it, in a real process."""

import os
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from model_service.front.engine_client.client import EngineClient
from model_service.front.engine_client.process import EngineProcess, engine_environment
from model_service.front.metrics import ModelMetrics
from model_service.protocol import EngineSettings


@asynccontextmanager
async def engine(folder: str = "counting", ring_bytes: int = 2**16, **limits):
    process = EngineProcess(
        "tests.fakes.counting_engine", engine_environment(os.environ, 1), ring_bytes=ring_bytes
    )
    settings = {
        "max_running_sequences": 4,
        "max_waiting_sequences": 2,
        "buffer_bytes": 2**20,
        "stream_stall_timeout_s": 30.0,
        "engine_stall_timeout_s": 15.0,
    }
    metrics = ModelMetrics(CollectorRegistry(), "counting")
    client = EngineClient(process, metrics, **settings | limits)
    try:
        await client.start(EngineSettings(socket_path="", ring_name="", model_folder=folder))
        yield client
    finally:
        await client.stop()
