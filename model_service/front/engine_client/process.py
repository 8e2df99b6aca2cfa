"""Starts the process that owns the model, and carries frames to and from it.

Knows nothing of calls: it hands over every message and says when the process is
gone. The engine never outlives this process, because it ends when its socket
closes.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import DEVNULL

import msgspec
import psutil
import structlog

from model_service.protocol import Command, Commands, EngineSettings, Message, Shutdown, channel

READ_BYTES = 2**20
STOP_GRACE_S = 5.0
DRAIN_GRACE_S = 0.5

# Shapes of products whose preparation each of two caches keeps.
SHAPES_KEPT = "64"

log = structlog.stdlib.get_logger("model_service.front.engine_client.process")


def engine_environment(base: Mapping[str, str], threads: int) -> dict[str, str]:
    """Returns the variables that the engine is started with.

    OpenMP reads its own when torch is imported, so they cannot be set later. Its
    threads spin for a moment between parallel regions (fast) but not for long:
    next to a busy process endless spinning makes a step many times slower.
    oneDNN and torch's layer above it each keep what they have prepared for 1,024
    shapes of products, and every number of tokens in a step is a shape: that would
    come to hundreds of megabytes for no speed. A step reads all weights once, and
    where memory comes in pages of 2 MiB the processor need not look up an address
    for every 4 KiB of them: steps of few rows take an eighth less. Who sets other
    values of these keeps them.

    Args:
        base: the variables of this process.
        threads: OpenMP threads.
    """
    return {
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": SHAPES_KEPT,
        "LRU_CACHE_CAPACITY": SHAPES_KEPT,
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        **base,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": "10000",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # the log has lines, not bars
        "TQDM_DISABLE": "1",
        "PYTHONUNBUFFERED": "1",
    }


class EngineProcess:
    """One engine process and the connection to it. Used by the event loop only.

    Attributes:
        ring: the shared ring that the engine writes rows into.
        ended: resolved with a sentence for the log when the process has ended or
            its connection is lost.
    """

    def __init__(self, module: str, environment: Mapping[str, str], *, ring_bytes: int) -> None:
        """Prepares a process; `start` starts it.

        Args:
            module: what `python -m` runs, with `EngineSettings` as JSON in its
                only argument.
            environment: its environment variables, all of them.
            ring_bytes: size of the shared ring.
        """
        self.ring = channel.RingReader(ring_bytes)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._module = module
        self._environment = environment
        self._folder = tempfile.TemporaryDirectory(prefix="lockstep-")
        self._server: asyncio.Server | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._outbox: list[Command] = []
        self._flush_scheduled = False
        self._consumed_sent = 0
        self._read_to_end = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._released = False

    async def start(self, settings: EngineSettings, on_message: Callable[[Message], None]) -> None:
        """Starts the process. Messages are handed over from then on.

        Args:
            settings: what the engine needs; socket and ring are filled in here.
            on_message: called with every message, in order, on the event loop.
        """
        path = Path(self._folder.name) / "engine.sock"

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._writer is not None:
                writer.close()  # there is one engine, and it is here already
                return
            self._writer = writer
            await self._read(reader, on_message)

        self._server = await asyncio.start_unix_server(connected, path)
        settings = msgspec.structs.replace(
            settings, socket_path=str(path), ring_name=self.ring.name
        )
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            msgspec.json.encode(settings).decode(),
            env=self._environment,
            stdin=DEVNULL,
            stdout=sys.stderr,  # stdout carries one line, for the program that started the service
            pass_fds=(self.ring.descriptor,),
            start_new_session=True,  # Ctrl-C is for the front, which drains first
        )
        self._watcher = asyncio.create_task(self._watch(self._process))
        log.info("engine_started", pid=self._process.pid)

    @property
    def pid(self) -> int | None:
        """Process id of the engine, once started."""
        return self._process.pid if self._process else None

    @property
    def processor_s(self) -> float:
        """Processor time that the engine has used, in seconds; 0 where nobody knows."""
        try:
            used = psutil.Process(self.pid).cpu_times() if self.pid else None
        except psutil.Error:  # it has ended
            return 0.0
        return used.user + used.system if used else 0.0

    def post(self, command: Command) -> None:
        """Queues a command; commands of one turn of the loop travel in one frame."""
        self._outbox.append(command)
        self._schedule_flush()

    def rows_taken(self) -> None:
        """Returns room in the ring to the engine, not more often than is useful."""
        if self.ring.consumed - self._consumed_sent > self.ring.size // 8:
            self._schedule_flush()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ends the process: asks, then insists. Releases everything. May be called twice.

        Args:
            grace_s: time the process gets to end by itself.
        """
        process = self._process
        if process is not None and process.returncode is None:
            self.post(Shutdown())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace_s)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        if self._writer is not None:
            self._writer.close()
        if self._server is not None:
            self._server.close()
        if not self._released:
            self._released = True
            self.ring.close()
            self._folder.cleanup()
        if self._watcher is not None:
            self._watcher.cancel()
        self._end("The engine was stopped.")

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._writer is None or self._writer.is_closing():
            return
        commands, self._outbox = self._outbox, []
        self._consumed_sent = self.ring.consumed
        self._writer.write(channel.frame(Commands(commands, consumed=self._consumed_sent)))

    async def _read(
        self, reader: asyncio.StreamReader, on_message: Callable[[Message], None]
    ) -> None:
        frames = channel.FrameReader()
        try:
            while data := await reader.read(READ_BYTES):
                for body in frames.feed(data):
                    on_message(channel.decode_message(body))
        except ConnectionError:
            pass  # it has ended, with commands unread; `_watch` says how
        except Exception:  # garbage or a bug: nothing from this engine can be trusted any more
            log.exception("engine_connection_failed")
        self._read_to_end.set()
        asyncio.get_running_loop().call_later(
            DRAIN_GRACE_S, self._end, "The engine closed its connection."
        )

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        with contextlib.suppress(TimeoutError):  # its last message may still be in the socket
            await asyncio.wait_for(self._read_to_end.wait(), DRAIN_GRACE_S)
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._end(f"The engine ended with {cause}.")

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
