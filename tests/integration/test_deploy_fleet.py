"""Many replicas behind Envoy under load, restarted one after the other."""

import asyncio
import random
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import grpc
import pytest

from lockstep_client import AsyncLockstep, AsyncSession
from lockstep_client.exceptions import LockstepError, SessionNotFound, SessionOnOtherReplica
from tests.integration.envoy import envoy
from tests.integration.model_process import counting_process
from tests.ports import free_port
from tests.services import ServiceProcess

FIRST, LAST = 40, 250
"""Tokens that the counting engine only counts."""
LONGEST = 200
PAUSE_S = 2.0
"""Between two calls of a session, on average."""

RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}


@dataclass
class Replica:
    """A replica that keeps its name and its ports over restarts."""

    number: int
    checkpoint: Path
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> ServiceProcess:
        """Starts it, and waits until it serves."""
        for name in ("port", "health-port", "metrics-port"):
            self.ports.setdefault(name, free_port())
        flags = [f"--{name}={port}" for name, port in self.ports.items()]
        flags += [f"--replica=prod/model-{self.number}", "--drain-timeout-s=2"]
        flags += ["--max-sessions=2000", "--max-session-rows=2000"]
        process = counting_process(self.checkpoint, self.folder, *flags)
        return self.running.enter_context(process).service

    def stop(self) -> None:
        """Stops it as Kubernetes does: calls in progress get their time."""
        self.running.close()


@dataclass
class Record:
    """What came of the calls.

    Attributes:
        answered: how many gave the right answer.
        wrong: answers that are not right.
        refused: how often a call failed in which way that its caller may repeat or go on from.
        lost: failures that say neither.
        moved: sessions that were opened again by their client, not counting those that did so by
            themselves.
    """

    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    moved: int = 0

    def failed(self, error: LockstepError) -> None:
        """Takes a call that has failed."""
        if error.code in RETRYABLE or isinstance(error, SessionNotFound | SessionOnOtherReplica):
            self.refused[f"{type(error).__name__} {error.reason}".strip()] += 1
        else:
            self.lost.append(f"{type(error).__name__} {error.code}: {error}")

    def check(self, found: object, right: object) -> None:
        """Takes an answer."""
        if found == right:
            self.answered += 1
        else:
            self.wrong.append(f"{found} instead of {right}")


async def _step_forever(session: AsyncSession, record: Record, over: asyncio.Event) -> None:
    """Steps a session that counts, and checks what follows each token and all of them."""
    token = FIRST
    given = [token]
    known = True  # where the session is: not after a step that may have been made
    while not over.is_set():
        await asyncio.sleep(random.uniform(0, 2 * PAUSE_S))
        token = FIRST if token == LAST else token + 1
        try:
            if len(given) > LONGEST:
                await session.truncate(1)
                del given[1:]
            result = await session.step([[token]])
            given.append(token)
            known = True
            record.check(int(result.rows[0][0].logits.argmax()), token + 1)
        except LockstepError as error:
            record.failed(error)
            known = False
            if not session._reopens:
                with suppress(LockstepError):
                    await session.reopen()
                    known = True
                    record.moved += 1
    with suppress(LockstepError):
        found = await session.token_ids()
        if known:
            record.check(found, [given])


async def _generate_forever(ls: AsyncLockstep, record: Record, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.sleep(random.uniform(0, 4 * PAUSE_S))
        first = random.randrange(FIRST, LAST)
        try:
            out = await ls.model.generate([[first]], max_new_tokens=3)
            record.check(out.sequences, [[first + 1, first + 2, first + 3]])
        except LockstepError as error:
            record.failed(error)


@pytest.mark.parametrize(
    ("num_replicas", "num_clients", "num_sessions", "seconds"),
    [
        pytest.param(3, 6, 15, 15.0, id="ci"),
        pytest.param(
            10, 200, 500, 300.0, id="full", marks=[pytest.mark.full, pytest.mark.timeout(1200)]
        ),
    ],
)
async def test_no_answer_is_wrong_and_no_call_lost_while_replicas_restart(
    tiny_checkpoint: Path,
    tmp_path: Path,
    num_replicas: int,
    num_clients: int,
    num_sessions: int,
    seconds: float,
):
    record, over, restarts = Record(), asyncio.Event(), 0
    with ExitStack() as running:
        replicas = []
        for number in range(num_replicas):
            home = tmp_path / str(number)
            home.mkdir()
            replicas.append(Replica(number, tiny_checkpoint, home))
            running.callback(replicas[-1].stop)
        services = [await asyncio.to_thread(replica.start) for replica in replicas]
        gateway = envoy(tmp_path, [], services)
        address = await asyncio.to_thread(running.enter_context, gateway)
        clients = [AsyncLockstep(address, address, follow=False) for _ in range(num_clients)]
        work = []
        for number, client in zip(range(num_sessions), cycle(clients), strict=False):
            # One half goes on by itself, and the other half is told and opens again.
            session = await client.model.open_session([[FIRST]], reopen=number % 2 == 0)
            work.append(asyncio.create_task(_step_forever(session, record, over)))
        work += [asyncio.create_task(_generate_forever(each, record, over)) for each in clients]
        until = time.monotonic() + seconds
        for replica in cycle(replicas):
            if time.monotonic() > until:
                break
            await asyncio.to_thread(replica.stop)
            await asyncio.to_thread(replica.start)
            restarts += 1
        over.set()
        await asyncio.gather(*work)
        for client in clients:
            await client.close()
    print(f"{restarts} restarts, {record.answered} answers, {record.moved} sessions moved")
    print(dict(record.refused))
    assert not record.wrong, record.wrong[:5]
    assert not record.lost, record.lost[:5]
    assert record.answered > num_sessions
    assert restarts
