"""Part: steps of sessions, driven by a caller, and what they take beyond the engine's own step."""

import asyncio
import re
import statistics
import time
import urllib.request
from collections.abc import Mapping, Sequence

import grpc
from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import scores_pb2, tensor_pb2, tokens_pb2
from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceStub

from bench.parts.part import Figure, Part, Side
from bench.workload import Workload

STEPS = 32
SELECTIONS = {
    "top 50": scores_pb2.ScoreSelection(logits=True, top_k=50),
    "full row": scores_pb2.ScoreSelection(
        logits=True, full=True, dtype=tensor_pb2.DATA_TYPE_FLOAT32
    ),
}
STEP_SECONDS = re.compile(r"^lockstep_model_step_seconds_(sum|count)(?:\{[^}]*\})? (\S+)$", re.M)


class Steps(Part):
    """Sessions of which each steps as soon as its last step was answered."""

    name = "steps"
    title = "Steps of sessions: what one takes beyond the engine's step"
    case_title = "answer, sessions"
    figures = (
        Figure("beyond_ms", "beyond the engine's step ms", 2, more_is_better=False),
        Figure("round_trip_ms", "round trip p50 ms", 2, more_is_better=False),
        Figure("engine_ms", "engine's step ms", 2, more_is_better=False),
    )

    @property
    def cases(self) -> Sequence[str]:
        return [f"{name}, {n}" for name in SELECTIONS for n in self._setup.streams]

    def sides(self) -> Mapping[str, Side]:
        def measure(case: str, seed: int) -> dict[str, float]:
            selection, _, count = case.partition(", ")
            workload = self._setup.workload(int(count))
            return asyncio.run(self._measure(SELECTIONS[selection], workload, seed))

        return {f"ours {self._setup.precision}": measure}

    async def _measure(
        self, selection: scores_pb2.ScoreSelection, workload: Workload, seed: int
    ) -> dict[str, float]:
        """Opens sessions, steps them side by side, and closes them."""
        service = self._setup.service
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(service.address, options) as channel:
            stub = LogitsSessionServiceStub(channel)
            sessions = []
            for ids in workload.prompts(seed):
                batch = tokens_pb2.TokenBatch(sequences=[tokens_pb2.TokenSequence(ids=ids)])
                prompt = tokens_pb2.PromptBatch(token_batch=batch)
                opened = await stub.OpenSession(pb.OpenSessionRequest(prompt=prompt))
                sessions.append(opened.session_id)

            async def step(session_id: str, token_id: int) -> float:
                request = pb.StepRequest(
                    session_id=session_id, rows=[pb.RowStep(ids=[token_id])], scores=selection
                )
                start = time.perf_counter()
                await stub.Step(request)
                return time.perf_counter() - start

            async def drive(session_id: str) -> list[float]:
                return [await step(session_id, number) for number in range(STEPS)]

            before = _engine_steps(service.metrics_address)
            times = [t for some in await asyncio.gather(*map(drive, sessions)) for t in some]
            after = _engine_steps(service.metrics_address)
            for session_id in sessions:
                await stub.CloseSession(pb.CloseSessionRequest(session_id=session_id))
        engine_s = (after["sum"] - before["sum"]) / (after["count"] - before["count"])
        return {
            "beyond_ms": 1000 * (statistics.mean(times) - engine_s),
            "round_trip_ms": 1000 * statistics.median(times),
            "engine_ms": 1000 * engine_s,
        }


def _engine_steps(address: str) -> dict[str, float]:
    """Returns the sum of the engine's steps in seconds so far, and their number."""
    with urllib.request.urlopen(f"http://{address}/metrics") as response:
        text = response.read().decode()
    return {name: float(value) for name, value in STEP_SECONDS.findall(text)}
