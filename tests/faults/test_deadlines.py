"""Calls whose time is up, under four times the load that can be served (R3)."""

import asyncio
import random
import time
from collections import Counter

import grpc
import pytest
from lockstep.v1 import model_service_pb2, model_service_pb2_grpc

from tests.checkpoint_factory import make_checkpoint
from tests.correctness.sizes import sizes
from tests.faults.watch import canaries, check_canaries, leaving_nothing
from tests.integration.model_process import ragged
from tests.services import running_services

AT_ONCE = 128  # four times what runs
LATEST_S = 0.5
# A call that ends on time may be told so a moment later: the caller is busy, too.
DELIVERY_S = 1.0


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deadlines")
    with running_services(make_checkpoint(folder / "tiny"), folder) as running:
        yield running


async def call_all(address: str, count: int) -> tuple[Counter[str], list[float]]:
    """Makes calls with random deadlines; returns their ends, and how long after its deadline each
    failed call has failed."""
    ends, late_s, places = Counter(), [], asyncio.Semaphore(AT_ONCE)
    rng = random.Random(0)
    async with grpc.aio.insecure_channel(address, [("grpc.enable_retries", 0)]) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)

        async def call(prompt: list[int], new_tokens: int, timeout_s: float) -> None:
            request = model_service_pb2.GenerateRequest(
                prompt=ragged(prompt),
                generation_config={"max_new_tokens": new_tokens, "eos_token_ids": {}},
            )
            async with places:
                due = time.monotonic() + timeout_s
                try:
                    await stub.Generate(request, timeout=timeout_s)
                except grpc.aio.AioRpcError as error:
                    ends[error.code().name] += 1
                    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                        late_s.append(time.monotonic() - due)
                    else:
                        await asyncio.sleep(0.05)
                else:
                    ends["OK"] += 1
                    assert time.monotonic() < due + DELIVERY_S

        async with asyncio.TaskGroup() as calls:
            for _ in range(count):
                prompt = [rng.randrange(3, 300) for _ in range(rng.randint(1, 60))]
                calls.create_task(
                    call(prompt, rng.choice([2, 20, 150]), rng.uniform(0.001, LATEST_S))
                )
    return ends, late_s


@sizes("count", ci=200, full=2000)
def test_calls_whose_time_is_up_end_then_and_leave_nothing(services, count):
    with leaving_nothing(services.model), canaries(services) as outcome:
        ends, late_s = asyncio.run(call_all(services.model.address, count))
    print(f"\n{dict(ends)}, latest {max(late_s):.3f} s after its deadline")
    assert set(ends) <= {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert ends["DEADLINE_EXCEEDED"] > count / 4
    assert max(late_s) < DELIVERY_S
    check_canaries(outcome)
