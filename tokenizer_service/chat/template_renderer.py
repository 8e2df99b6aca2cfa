"""Renders chat templates in processes that can be ended.

A template that loops or eats memory ends its worker after the time limit; the call
fails, another worker takes its place, without an effect on other calls.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import structlog

from rpc.errors import ChatTemplateFailed
from rpc.places import Places
from tokenizer_service.chat.template_worker import LENGTH

_START_TIMEOUT_S = 120.0
_USUAL_S = 0.05
# The worker ends itself at the time limit; this is for one that cannot.
_KILL_AFTER = 1.5

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """What a template is given.

    Attributes:
        template: name of the template.
        conversations: lists of messages.
        add_generation_prompt: whether the assistant's turn is opened.
        continue_final_message: whether the last message is left open.
        tools: JSON values, None for no tools.
        documents: JSON values, None for no documents.
        variables: further variables of the template.
    """

    template: str
    conversations: list[list[dict[str, Any]]]
    add_generation_prompt: bool
    continue_final_message: bool = False
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What one call may use.

    Attributes:
        time_s: seconds of wall-clock time.
        memory_bytes: memory beyond what the worker needs anyway.
        output_bytes: length of all texts in UTF-8.
        max_waiting: calls that may wait for a worker.
    """

    time_s: float = 1.0
    memory_bytes: int = 256 * 2**20
    output_bytes: int = 4 * 2**20
    max_waiting: int = 64


class TemplateRenderer:
    """A few workers, each with one request at a time. Used from one event loop."""

    def __init__(self, templates: Mapping[str, str], *, workers: int, limits: RenderLimits) -> None:
        self._templates = dict(templates)
        self._num_workers = workers if templates else 0
        self._limits = limits
        self._idle: asyncio.LifoQueue[Process] = asyncio.LifoQueue()
        self._processes: set[Process] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._places = Places(max(self._num_workers, 1), limits.max_waiting, usual_s=_USUAL_S)
        self._closed = False

    async def start(self) -> None:
        """Starts all workers and returns when they are ready.

        Raises:
            OSError: a worker does not start.
        """
        await asyncio.gather(*(self._add_worker() for _ in range(self._num_workers)))

    async def close(self) -> None:
        """Ends all workers."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(process) for process in list(self._processes)))

    async def render(self, request: RenderRequest) -> list[str]:
        """Renders one text per conversation.

        Raises:
            ChatTemplateFailed: the template refused, or exceeded a limit.
            Overloaded: too many calls wait for a worker.
        """
        self._places.enter("chat templates")
        try:
            process = await self._idle.get()
        except BaseException:
            self._places.leave()
            raise
        # A caller that goes away leaves its worker busy: only the task gives it back.
        use = self._spawn(self._use(process, request))
        use.add_done_callback(lambda _: self._places.leave())
        answer = await asyncio.shield(use)
        if "refusal" in answer:
            raise ChatTemplateFailed("conversations", answer["refusal"])
        texts: list[str] = answer["texts"]
        return texts

    async def _use(self, process: Process, request: RenderRequest) -> dict[str, Any]:
        written = await asyncio.to_thread(_written, request)
        try:
            async with asyncio.timeout(self._limits.time_s * _KILL_AFTER):
                answer = await _exchange(process, written)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            _log.warning("template worker ended", template=request.template)
            self._spawn(self._replace(process))
            return {"refusal": f"the template took longer than {self._limits.time_s:g} s"}
        self._idle.put_nowait(process)
        return answer

    async def _replace(self, process: Process) -> None:
        await self._end(process)
        if not self._closed:
            await self._add_worker()

    async def _add_worker(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tokenizer_service.chat.template_worker"),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # a Ctrl-C is for the service, which ends its workers
        )
        self._processes.add(process)
        setup = {
            "templates": self._templates,
            "time_limit_s": self._limits.time_s,
            "memory_limit_bytes": self._limits.memory_bytes,
            "output_limit_bytes": self._limits.output_bytes,
        }
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await _exchange(process, json.dumps(setup))
        except asyncio.IncompleteReadError:
            raise OSError("The template worker did not start; see its output.") from None
        self._idle.put_nowait(process)

    async def _end(self, process: Process) -> None:
        self._processes.discard(process)
        if process.returncode is None:
            process.kill()
        await process.wait()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _written(request: RenderRequest) -> str:
    """Writes what is sent, a message at a time: no thread can run while JSON is written."""
    members = {
        one.name: json.dumps(getattr(request, one.name))
        for one in fields(request)
        if one.name != "conversations"
    }
    rows = (",".join(map(json.dumps, messages)) for messages in request.conversations)
    members["conversations"] = f"[{','.join(f'[{row}]' for row in rows)}]"
    return f"{{{','.join(f'{json.dumps(name)}:{value}' for name, value in members.items())}}}"


async def _exchange(process: Process, message: str) -> dict[str, Any]:
    assert process.stdin is not None, "Workers are started with pipes. This is a bug."
    assert process.stdout is not None, "Workers are started with pipes. This is a bug."
    data = message.encode()
    process.stdin.write(LENGTH.pack(len(data)) + data)
    await process.stdin.drain()
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    answer: dict[str, Any] = json.loads(await process.stdout.readexactly(length))
    return answer
