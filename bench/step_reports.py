"""`python -m bench.step_reports`: processor time that the front takes for a report of the engine.

Every row of a batch gets a token in each report, and the tokens are taken as soon as they are
there, as by callers that read. Metrics are recorded; nothing is written to a socket. Calls that are
part of a sampled trace leave exemplars.
"""

import asyncio
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import cast

from prometheus_client import CollectorRegistry

from bench.spread import spread
from model_service.front.engine_client.call import Call
from model_service.front.engine_client.client import EngineClient
from model_service.front.engine_client.process import EngineProcess
from model_service.front.metrics import ModelMetrics
from model_service.protocol import (
    Event,
    Generate,
    Load,
    Report,
    SequenceSpec,
    SequenceTokens,
    StepStats,
    channel,
)
from model_service.protocol.parameters import GenerationConfig
from rpc.tracing import Trace

BATCHES = (1, 8, 32)
REPORTS = 300
ROUNDS = 15


async def main() -> None:
    """Prints the microseconds of a report."""
    print("| rows | us per report: median (min to max) | in a sampled trace |\n|---|---|---|")
    for rows in BATCHES:
        with ExitStack() as stack:
            client = _client(rows)
            calls = [stack.enter_context(client._calls.open(_request())) for _ in range(rows)]
            plain: list[float] = []
            traced: list[float] = []
            for _ in range(ROUNDS):
                for trace, found in ((None, plain), (Trace("0" * 32, True), traced)):
                    for call in calls:
                        call.trace = trace
                    found.append(_measure(client, calls) / REPORTS * 1e6)
        print(f"| {rows} | {spread(plain)} | {spread(traced)} |")


def _client(rows: int) -> EngineClient:
    """Returns the front's end of an engine that is not there."""
    absent = SimpleNamespace(ring=None, rows_taken=lambda: None, post=id, pid=None)
    return EngineClient(
        cast(EngineProcess, absent),
        ModelMetrics(CollectorRegistry(), "bench"),
        max_running_sequences=rows,
        max_waiting_sequences=rows,
        buffer_bytes=2**20,
        stream_stall_timeout_s=60.0,
        engine_stall_timeout_s=60.0,
    )


def _request() -> Generate:
    return Generate([SequenceSpec([1], 0)], GenerationConfig(max_new_tokens=1_000_000), 0)


def _measure(client: EngineClient, calls: list[Call]) -> float:
    """Returns the processor time of many reports, in seconds."""
    events: list[Event] = [SequenceTokens(call.request_id, 0, [7]) for call in calls]
    stats = StepStats(0.02, len(calls), 0, 0.018, 0.001)
    frame = channel.encode(Report(events, Load(len(calls), 0, 100, 0), stats))
    reports = [channel.decode_message(frame) for _ in range(REPORTS)]
    start = time.process_time()
    for report in reports:
        client._on_message(report)
        for call in calls:
            call._waiting.clear()
    return time.process_time() - start


if __name__ == "__main__":
    asyncio.run(main())
