"""Every method of the client, called without a pause while both services are restarted."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from lockstep_client import AsyncLockstep, Lockstep, LockstepError
from tests.ports import free_port
from tests.services import running_process

NUM_CALLERS = 8
READY_S = 300.0
"""How long a service that is called without a pause may take to get ready on a busy machine."""
PAUSE_S = 0.02
"""How long a caller waits after a call that has failed: the services have to start, too."""
TIMEOUT_S = 2.0
"""Longest timeout of a call. A `generate` from text is three calls."""

LONG = {"max_new_tokens": 120, "eos_token_id": []}
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "generate": (("a b",), LONG),
    "stream": (("a b",), LONG),
    "tokenizer.encode": (("a b",), {}),
    "tokenizer.decode": (([[5, 6]],), {}),
    "tokenizer.decode_rows": (([[5, 6]],), {}),
    "tokenizer.decode_stream": (([5, 6, 7],), {}),
    "tokenizer.pad": (([[5], [6, 7]],), {}),
    "tokenizer.apply_chat_template": (([{"role": "user", "content": "a"}],), {}),
    "tokenizer.count_tokens": (("a b",), {}),
    "tokenizer.convert_tokens": ((), {"ids": [5]}),
    "tokenizer.info": ((), {}),
    "tokenizer.vocabulary": ((), {}),
    "tokenizer.artifact": ((), {}),
    "vocabulary.add_tokens": ((["<new>"],), {"dry_run": True}),
    "vocabulary.set_special_tokens": (({"pad": 10**6},), {}),  # refused
    "vocabulary.revisions": ((), {}),
    "vocabulary.verify": ((), {}),
    "vocabulary.export_revisions": ((), {}),
    "vocabulary.import_revisions": ((b"{}",), {}),  # refused
    "model.generate": (([[5, 6]],), LONG),
    "model.stream": (([[5, 6]],), LONG),
    "model.score": (([[5, 6]],), {}),
    "model.compute_logits": (([[5, 6]],), {}),
    "model.info": ((), {}),
    "model.capabilities": ((), {}),
    "model.logits_processors": ((), {}),
    "model.load": ((), {}),
    "model.validate": (([[5, 6]],), LONG),
    "model.get_session": (("none",), {}),  # refused
}
SESSION_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "step": (([[7]],), {}),
    "look_ahead": (([[7]],), {}),
    "generate": ((), LONG),
    "stream": ((), {"max_new_tokens": 3}),
    "truncate": ((1,), {}),
    "select_rows": (([0],), {}),
    "rebind": ((), {}),
    "token_ids": ((), {}),
    "touch": ((), {}),
    "fork": ((), {}),
    "close": ((), {}),
}


STREAMED = ("model.generate", "tokenizer.vocabulary", "tokenizer.artifact", "stream")
"""What half of the callers call all the time: these are the calls that gRPC can forget."""


@dataclass
class Record:
    """What came of the calls.

    Attributes:
        outcomes: how often each method ended in which way.
        latest: how long after its deadline the latest call ended, in seconds, and its name.
        lag_s: how late the machine wakes a sleeper, at most, which is no call's fault.
        foreign: exceptions that are none of ours.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    latest: tuple[float, str] = (0.0, "")
    lag_s: float = 0.0
    foreign: list[BaseException] = field(default_factory=list)

    @contextmanager
    def call(self, name: str, limit_s: float) -> Iterator[None]:
        """Takes how the call inside ends, which must be within a time."""
        began = time.monotonic()
        outcome = "answered"
        try:
            yield
        except LockstepError as error:
            outcome = type(error).__name__
        except BaseException as error:  # whatever it is, a caller would get it
            outcome = type(error).__name__
            self.foreign.append(error)
        self.latest = max(self.latest, (time.monotonic() - began - limit_s, name))
        self.outcomes[name, outcome] += 1

    def slept(self, began: float) -> None:
        """Takes how long a sleep of `PAUSE_S` has taken."""
        self.lag_s = max(self.lag_s, time.monotonic() - began - PAUSE_S)

    def check(self, late_s: float) -> None:
        """Checks that calls ended in time, and that there were some of each kind."""
        late_by_s, name = self.latest
        print(f"{self.outcomes.total()} calls; {name} was {late_by_s:.2f} s late")
        print(f"A sleeper was woken up to {self.lag_s:.2f} s late.")
        print(sum((Counter({o: n}) for (_, o), n in self.outcomes.items()), Counter()))
        assert not self.foreign, self.foreign
        assert late_by_s < late_s, name
        assert {name for name, _ in self.outcomes} >= {*CALLS, "open_session", "open_decoder"}
        assert {"answered", "ConnectionFailed"} <= {outcome for _, outcome in self.outcomes}


def _blocking(ls: Lockstep, record: Record, stop: threading.Event, *, everything: bool) -> None:
    def call(name: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        timeout_s = random.uniform(0.2, TIMEOUT_S)
        limit_s = timeout_s + (2 * TIMEOUT_S if name in {"generate", "stream"} else 0.0)
        with record.call(name, limit_s):
            result = method(*arguments, timeout=timeout_s, **options)
            return list(result) if isinstance(result, Iterator) else result
        began = time.monotonic()
        time.sleep(PAUSE_S)
        record.slept(began)
        return None

    def decode(*, timeout: float) -> None:
        with ls.tokenizer.open_decoder(timeout=timeout) as decoder:
            decoder.feed([5])
            decoder.end()

    def step(session: Any, *, timeout: float) -> None:
        with session.step_stream(timeout=timeout) as steps:
            steps.step([[7]])
            steps.step([[8]])

    while not stop.is_set():
        names = [*CALLS] if everything else STREAMED
        for name in random.sample(names, len(names)):
            arguments, options = CALLS[name]
            call(name, attrgetter(name)(ls), *arguments, **options)
        if not everything:
            continue
        call("open_decoder", decode)
        if (session := call("open_session", ls.model.open_session, [[5, 6]])) is not None:
            call("session.step_stream", step, session)
            for name, (arguments, options) in SESSION_CALLS.items():
                call(f"session.{name}", getattr(session, name), *arguments, **options)


async def _asynchronous(
    ls: AsyncLockstep, record: Record, stop: threading.Event, *, everything: bool
) -> None:
    async def call(name: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        timeout_s = random.uniform(0.2, TIMEOUT_S)
        limit_s = timeout_s + (2 * TIMEOUT_S if name in {"generate", "stream"} else 0.0)
        with record.call(name, limit_s):
            result = method(*arguments, timeout=timeout_s, **options)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result if isinstance(result, Awaitable) else result
        began = time.monotonic()
        await asyncio.sleep(PAUSE_S)
        record.slept(began)
        return None

    async def decode(*, timeout: float) -> None:  # noqa: ASYNC109
        async with ls.tokenizer.open_decoder(timeout=timeout) as decoder:
            await decoder.feed([5])
            await decoder.end()

    async def step(session: Any, *, timeout: float) -> None:  # noqa: ASYNC109
        async with session.step_stream(timeout=timeout) as steps:
            await steps.step([[7]])
            await steps.step([[8]])

    while not stop.is_set():
        names = [*CALLS] if everything else STREAMED
        for name in random.sample(names, len(names)):
            arguments, options = CALLS[name]
            await call(name, attrgetter(name)(ls), *arguments, **options)
        if not everything:
            continue
        await call("open_decoder", decode)
        if (session := await call("open_session", ls.model.open_session, [[5, 6]])) is not None:
            await call("session.step_stream", step, session)
            for name, (arguments, options) in SESSION_CALLS.items():
                await call(f"session.{name}", getattr(session, name), *arguments, **options)


def _restart(
    checkpoint: Path, folder: Path, ports: tuple[int, int], model_module: str, times: int
) -> None:
    """Runs both services on the same ports again and again; each is stopped or killed."""
    flags = ["--drain-timeout-s=1", f"--model={checkpoint}"]
    store = f"--store=sqlite:///{folder / 'vocabulary.sqlite'}"
    for turn in range(times):
        with ExitStack() as running:
            services = [
                running.enter_context(
                    running_process(module, f"--port={port}", *flags, *more, folder=folder)
                )
                for module, port, more in (
                    ("tokenizer_service", ports[0], [store]),
                    (model_module, ports[1], []),
                )
            ]
            if turn % 4 != 3:  # the fourth is not given the time to get ready
                addresses = (f"localhost:{port}" for port in ports)
                with Lockstep(*addresses) as ls:
                    ls.wait_until_ready(READY_S)
            time.sleep(random.uniform(0.3, 2.0))
            if turn % 2:
                for service in services:
                    service.process.kill()


COUNTING = "tests.fakes.counting_server"
SIZES = pytest.mark.parametrize(
    ("model_module", "restarts", "late_s"),
    [
        pytest.param(COUNTING, 3, 5.0, id="ci"),
        *(
            pytest.param(
                *size, 0.5, id=f"full-{name}", marks=[pytest.mark.full, pytest.mark.timeout(3600)]
            )
            for name, size in {"counting": (COUNTING, 50), "model": ("model_service", 10)}.items()
        ),
    ],
)


@SIZES
def test_blocking_calls_end_in_time_while_services_restart(
    tiny_checkpoint: Path, tmp_path: Path, model_module: str, restarts: int, late_s: float
):
    ports, record, stop = (free_port(), free_port()), Record(), threading.Event()
    with Lockstep(
        tokenizer=f"localhost:{ports[0]}",
        model=f"localhost:{ports[1]}",
        timeout=TIMEOUT_S,
        stream_timeout=TIMEOUT_S,
    ) as ls:
        callers = [
            threading.Thread(
                target=_blocking,
                args=(ls, record, stop),
                kwargs={"everything": caller % 2 == 0},
                daemon=True,
            )
            for caller in range(NUM_CALLERS)
        ]
        for caller in callers:
            caller.start()
        _restart(tiny_checkpoint, tmp_path, ports, model_module, restarts)
        stop.set()
        for caller in callers:
            caller.join(120.0)
        assert not any(caller.is_alive() for caller in callers), "A call hangs."
    record.check(late_s)


@SIZES
async def test_asyncio_calls_end_in_time_while_services_restart(
    tiny_checkpoint: Path, tmp_path: Path, model_module: str, restarts: int, late_s: float
):
    ports, record, stop = (free_port(), free_port()), Record(), threading.Event()
    async with AsyncLockstep(
        tokenizer=f"localhost:{ports[0]}",
        model=f"localhost:{ports[1]}",
        timeout=TIMEOUT_S,
        stream_timeout=TIMEOUT_S,
    ) as ls:
        callers = [
            asyncio.create_task(_asynchronous(ls, record, stop, everything=caller % 2 == 0))
            for caller in range(NUM_CALLERS)
        ]
        await asyncio.to_thread(_restart, tiny_checkpoint, tmp_path, ports, model_module, restarts)
        stop.set()
        async with asyncio.timeout(120.0):
            await asyncio.gather(*callers)
    record.check(late_s)
