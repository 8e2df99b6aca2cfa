"""Callers of a model service in a process of their own, so that it can have a core of its own.

`python -m tests.integration.load_generator '{"address": ..., ...}'` takes a `Load` as JSON and
prints a `Seen` as JSON. Requests stay bytes, so that the generator does little itself. What it
measures begins when a call was due, not when it was sent: a call that the generator itself sent
late is not flattered. How late it was, is measured too.
"""

import asyncio
import json
import random
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lockstep.v1.model_service_pb2 import GenerateStreamResponse

METHOD = "/lockstep.v1.ModelService/GenerateStream"
NUM_CHANNELS = 4
MOST_ATTEMPTS = 20


@dataclass(frozen=True)
class Load:
    """What is called, and how often.

    Attributes:
        address: the service.
        health_address: its health, asked twice a second.
        request: a `GenerateStreamRequest`, as hexadecimal digits.
        seconds: how long calls begin.
        per_second: calls that begin in a second at random moments (Poisson), whatever becomes of
            those before. 0 means that callers begin their next call when one has ended.
        callers: callers of that kind.
        returning: share of the callers that come back when they are told to.
    """

    address: str
    health_address: str
    request: str
    seconds: float
    per_second: float = 0.0
    callers: int = 0
    returning: float = 0.0


@dataclass
class Seen:
    """What the callers saw. Times are in seconds.

    Attributes:
        ended: calls by how they ended: `OK`, or code and reason.
        completed: calls that ended well before the last one was due.
        tokens_per_s: tokens that came in a second, for the goodput; without the first sixth of the
            time, in which places fill.
        seconds: how long that was.
        refused_s: from when a call was due to its refusal.
        late_s: how late the generator sent each call.
        first_token_s: from when a call was due to its first token.
        gap_s: between two tokens of a call.
        told_s, waited_s: of each caller that came back and was let in: what it was told at first,
            and how long after it was let in.
        refusals: attempts in which a caller that came back was refused again.
        incomplete: refusals without both `RetryInfo` and pushback, or with different ones.
        health_s: time of each health check.
        health_failed: health checks that failed.
    """

    ended: Counter[str] = field(default_factory=Counter)
    completed: int = 0
    tokens_per_s: float = 0.0
    seconds: float = 0.0
    refused_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)
    told_s: list[float] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    refusals: int = 0
    incomplete: int = 0
    health_s: list[float] = field(default_factory=list)
    health_failed: int = 0


@dataclass
class Refusal:
    """How a call failed.

    Attributes:
        code: the status.
        reason: of the details.
        retry_s: `RetryInfo`, or None.
        pushback: of the trailing metadata, or None.
    """

    code: str
    reason: str
    retry_s: float | None
    pushback: str | None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "Refusal":
        trailing = dict(error.trailing_metadata() or ())
        info, retry = ErrorInfo(), RetryInfo()
        retry_s = None
        for detail in Status.FromString(trailing.get("grpc-status-details-bin", b"")).details:
            if detail.Unpack(retry):
                retry_s = retry.retry_delay.ToMilliseconds() / 1000
            else:
                detail.Unpack(info)
        pushback = trailing.get("grpc-retry-pushback-ms")
        return cls(error.code().name, info.reason, retry_s, pushback)

    @property
    def is_complete(self) -> bool:
        """Whether both say when to come back, or both that it is of no use."""
        if self.retry_s is None:
            return self.pushback == "-1"
        return self.pushback == str(round(self.retry_s * 1000))


class Generator:
    """Makes the calls of a load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._seen = Seen()
        self._request = bytes.fromhex(load.request)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channels = [grpc.aio.insecure_channel(load.address, options) for _ in range(NUM_CHANNELS)]
        self._methods = [channel.unary_stream(METHOD) for channel in channels]
        self._counts_from = self._ends_at = 0.0
        self._num_tokens = 0
        self._random = random.Random(1)

    async def run(self) -> Seen:
        """Makes all calls and waits for their ends."""
        start = time.monotonic()
        self._ends_at = start + self._load.seconds
        self._counts_from = start + self._load.seconds / 6
        probing = asyncio.create_task(self._probe())
        if self._load.per_second:
            await self._at_random(start)
        else:
            await asyncio.gather(*(self._again_and_again() for _ in range(self._load.callers)))
        probing.cancel()
        self._seen.seconds = self._load.seconds
        self._seen.tokens_per_s = self._num_tokens / (self._ends_at - self._counts_from)
        return self._seen

    async def _at_random(self, due: float) -> None:
        async with asyncio.TaskGroup() as calls:
            while (due := due + self._random.expovariate(self._load.per_second)) < self._ends_at:
                await asyncio.sleep(due - time.monotonic())
                calls.create_task(self._call(due))

    async def _again_and_again(self) -> None:
        while time.monotonic() < self._ends_at:
            await self._call(time.monotonic())

    async def _call(self, due: float) -> None:
        """Makes a call, again if it is told to and is one that comes back."""
        returns = self._random.random() < self._load.returning
        name = (("x-request-id", uuid.uuid4().hex),)
        told_s, refused_at = None, 0.0
        for _ in range(MOST_ATTEMPTS):
            self._seen.late_s.append(time.monotonic() - due)
            refusal = await self._attempt(due, name, told_s, refused_at)
            if refusal is None:
                return
            now = time.monotonic()
            if told_s is None:
                self._seen.refused_s.append(now - due)
                told_s, refused_at = refusal.retry_s, now
            else:
                self._seen.refusals += 1
            if not returns or refusal.retry_s is None:
                return
            due = now + max(0.1, refusal.retry_s) * self._random.uniform(1, 1.2)
            if due > self._ends_at:
                return
            await asyncio.sleep(due - time.monotonic())

    async def _attempt(
        self, due: float, name: tuple, told_s: float | None, refused_at: float
    ) -> Refusal | None:
        seen = self._seen
        newest = None
        try:
            async for message in self._random.choice(self._methods)(self._request, metadata=name):
                now = time.monotonic()
                if self._counts_from <= now < self._ends_at:
                    deltas = GenerateStreamResponse.FromString(message).deltas.deltas
                    self._num_tokens += sum(len(delta.token_ids) for delta in deltas)
                if newest is None and told_s is not None:  # the first message: it was let in
                    seen.told_s.append(told_s)
                    seen.waited_s.append(now - refused_at)
                elif newest == due:
                    seen.first_token_s.append(now - due)
                elif newest is not None:
                    seen.gap_s.append(now - newest)
                newest = due if newest is None else now
        except grpc.aio.AioRpcError as error:
            refusal = Refusal.of(error)
            seen.ended[f"{refusal.code} {refusal.reason}"] += 1
            seen.incomplete += not refusal.is_complete
            return refusal
        seen.ended["OK"] += 1
        seen.completed += time.monotonic() < self._ends_at
        return None

    async def _probe(self) -> None:
        async with grpc.aio.insecure_channel(self._load.health_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                start = time.monotonic()
                try:
                    request = health_pb2.HealthCheckRequest(service="liveness")
                    answer = await stub.Check(request, timeout=1)
                    self._seen.health_failed += answer.status != answer.SERVING
                except grpc.aio.AioRpcError:
                    self._seen.health_failed += 1
                self._seen.health_s.append(time.monotonic() - start)
                await asyncio.sleep(0.5)


async def main(load: Load) -> Seen:
    """Makes the calls of a load, in the loop that the channels are made in."""
    return await Generator(load).run()


if __name__ == "__main__":
    made = asyncio.run(main(Load(**json.loads(sys.argv[1]))))
    print(json.dumps(vars(made)))
