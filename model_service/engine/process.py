"""The engine's process: loads the model, then alternates between inbox and step.

Started by the front as `python -m model_service.engine.process SETTINGS`, with
`EngineSettings` as JSON, and with its environment (threads, spinning) already
set, because OpenMP reads it when torch is imported. The process ends when the
front's socket closes: it never outlives the front.
"""

import contextlib
import logging
import selectors
import socket
import sys

import msgspec
import torch

from model_service.engine.engine import Engine
from model_service.engine.layers import placement
from model_service.engine.load import loader, memory
from model_service.engine.load.loader import LoadedModel, Refused
from model_service.engine.run import kv_memory
from model_service.engine.run.decode_graph.decode_graphs import DecodeGraphs
from model_service.engine.run.kv_pages import PagedKVCache
from model_service.engine.run.runner import CachingRunner
from model_service.engine.run.step_timer import StepTimer
from model_service.engine.sampling import custom_processors, random
from model_service.engine.sampling.custom_processors import CustomProcessorError
from model_service.engine.schedule.places import Places
from model_service.engine.schedule.prefill import KEYS_PER_UNIT, PrefillClock
from model_service.engine.schedule.scheduler import MAX_STEP_TOKENS, Scheduler
from model_service.engine.trial import assistant_choice, runner_choice
from model_service.protocol import (
    EngineInfo,
    EngineSettings,
    LoadFailed,
    LoadProgress,
    Message,
    Ready,
    Shutdown,
)
from model_service.protocol.channel import FrameReader, RingWriter, decode_commands, frame
from model_service.protocol.parameters import GenerationConfig
from rpc import json_lines

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20

# Share of the memory that is free after loading which the KV cache may take.
KV_MEMORY_SHARE = 0.5

# Threads while a GPU has the weights: what is left for the CPU are operators on a few thousand
# numbers, and more threads than these would wait for each other at every one.
MOST_GPU_THREADS = 4

# How often an idle engine looks after graphs that are being compiled.
GRAPH_POLL_S = 0.2


class Connection:
    """The front's socket: frames in without waiting, frames out without blocking the engine."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._reader = FrameReader()
        self._unsent = bytearray()

    def send(self, message: Message) -> None:
        """Sends a message as far as the socket takes it, and keeps the rest."""
        self._unsent += frame(message)
        self._flush()

    def receive(self, timeout_s: float | None) -> list[bytes]:
        """Returns the frames that have arrived.

        Args:
            timeout_s: how long to sleep until something arrives; None for as long as it takes.

        Raises:
            ConnectionError: the front is gone.
        """
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._socket, events)
        if not self._selector.select(timeout_s):
            return []
        self._flush()
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionError("the front closed its socket")
        return self._reader.feed(data)

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]

    def drain(self) -> None:
        """Sends everything, however long it takes."""
        self._socket.setblocking(True)
        self._socket.sendall(self._unsent)
        self._unsent.clear()


def serve(engine: Engine, graphs: DecodeGraphs, connection: Connection, ring: RingWriter) -> None:
    """Runs until the front says so or is gone."""
    told = None
    busy = False
    while True:
        if graphs.status != told:
            told = graphs.status
            connection.send(told)
        idle_s = GRAPH_POLL_S if graphs.is_preparing else None
        for body in connection.receive(0.0 if busy else idle_s):
            commands = decode_commands(body)
            ring.release(commands.consumed)
            for command in commands.commands:
                if isinstance(command, Shutdown):
                    return
                engine.handle(command)
        report = engine.step()
        busy = report is not None or engine.is_growing
        if report is not None:
            connection.send(report)
        graphs.advance()


def build(
    settings: EngineSettings, connection: Connection, ring: RingWriter
) -> tuple[Engine, EngineInfo, DecodeGraphs]:
    """Loads the model, checks it and puts the engine together.

    Raises:
        Refused: the model cannot be served.
        CustomProcessorError: a module with processors cannot be used.
    """
    custom = custom_processors.load(settings.logits_processors)  # in a moment, so before the rest
    connection.send(LoadProgress("weights", 0.0))

    def begin_self_test() -> None:
        connection.send(LoadProgress("weights", 1.0))
        connection.send(LoadProgress("self-test", 0.0))

    loaded, runner = runner_choice.choose(settings, begin_self_test)
    assistant = assistant_choice.choose(settings, loaded, runner)
    if loaded.is_on_gpus:
        torch.set_num_threads(min(settings.threads, MOST_GPU_THREADS))
    connection.send(LoadProgress("self-test", 1.0))
    default = loader.default_config(loaded, settings)
    kv_bytes = runner.cache.bytes_per_token + (assistant.bytes_per_token if assistant else 0)
    kv_total = kv_total_tokens(settings, loaded, runner, kv_bytes)
    places = Places(
        num_slots=runner.cache.num_slots,
        total_tokens=kv_total,
        allocate=runner.cache.allocate,
        free=runner.cache.free,
        copy=runner.cache.copy,
        reuses=runner.cache.cuts_freely,
    )
    scheduler = Scheduler(
        max_running=min(settings.max_running_sequences, runner.cache.num_slots),
        max_step_tokens=MAX_STEP_TOKENS,
        clock=PrefillClock(
            settings.prefill_budget_s, even_context=KEYS_PER_UNIT * loaded.hidden_size
        ),
        places=places,
    )
    engine = Engine(
        runner,
        scheduler,
        ring.put,
        context_length=loaded.context_length,
        kv_total_tokens=kv_total,
        kv_bytes_per_token=runner.cache.bytes_per_token,
        places=places,
        custom=custom,
        assistant=assistant,
        timer=StepTimer(placement.input_device(loaded.model.get_output_embeddings())),
    )
    runner.graphs.prepare(settings, loaded)
    info = describe(
        settings, loaded, runner, default, kv_total, kv_session=scheduler.kv_session_limit
    )
    descriptions = tuple(processor.describe() for processor in custom)
    info = msgspec.structs.replace(info, custom_processors=descriptions)
    return engine, info, runner.graphs


def kv_total_tokens(
    settings: EngineSettings, loaded: LoadedModel, runner: CachingRunner, bytes_per_token: int
) -> int:
    """Returns the tokens of KV cache to admit: as set, or as many as memory allows.

    Args:
        settings: the engine's.
        loaded: the model.
        runner: what runs it.
        bytes_per_token: what a token takes, also in the cache of an assistant.
    """
    wanted = kv_memory.wanted_tokens(settings, loaded)
    if isinstance(runner.cache, PagedKVCache):  # pages are set aside already
        return min(wanted, runner.cache.most_tokens)
    devices = {weight.device for weight in loaded.model.parameters()}
    gpus = [device for device in devices if device.type == "cuda"]
    if settings.max_kv_tokens:
        return settings.max_kv_tokens
    if gpus:  # layers are spread evenly, so the fullest device is the bound
        available = min(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus) * len(gpus)
    else:
        available = memory.available_bytes()
    fitting = int(available * KV_MEMORY_SHARE) // bytes_per_token
    return max(1, min(wanted, fitting))


def describe(
    settings: EngineSettings,
    loaded: LoadedModel,
    runner: CachingRunner,
    default: GenerationConfig,
    kv_total: int,
    *,
    kv_session: int,
) -> EngineInfo:
    """Collects what the front tells its callers about the model."""
    config = loaded.config
    return EngineInfo(
        architecture=type(loaded.model).__name__,
        dtype=loaded.dtype_name,
        parameter_count=loaded.num_parameters,
        hidden_size=loaded.hidden_size,
        layer_count=config.num_hidden_layers,
        context_length=loaded.context_length,
        vocabulary_size=runner.vocabulary.size,
        embedding_row_count=runner.vocabulary.num_rows,
        tied_embeddings=runner.vocabulary.tied,
        eos_token_ids=list(default.eos_token_ids),
        bos_token_id=getattr(config, "bos_token_id", None),
        pad_token_id=getattr(config, "pad_token_id", None),
        default_config=default,
        device_map=loaded.device_map,
        execution_path=runner.name,
        attention=attention_name(loaded, runner),
        rng=random.NAME,
        kv_total_tokens=kv_total,
        kv_session_tokens=kv_session,
        kv_bytes_per_token=runner.cache.bytes_per_token,
        reserved_rows=runner.vocabulary.num_reserved,
        max_running_sequences=min(settings.max_running_sequences, runner.cache.num_slots),
        load_s=loaded.load_s,
        weight_format="int8" if settings.weights == "int8" else loaded.dtype_name,
        rowless_id_count=runner.vocabulary.base_size - runner.vocabulary.num_usable,
    )


def attention_name(loaded: LoadedModel, runner: CachingRunner) -> str:
    """Names what attends: Hugging Face's implementation, or ours and the kernel on its pages."""
    name = loaded.config._attn_implementation or ""
    on_pages = isinstance(runner.cache, PagedKVCache) and runner.cache.kernel is not None
    return f"{name}_triton" if on_pages else name


def main() -> int:
    """Runs the process. Returns its exit status."""
    json_lines.configure("info")
    json_lines.adopt_warnings()
    settings = msgspec.json.decode(sys.argv[1], type=EngineSettings)
    torch.set_num_threads(settings.threads)
    torch.set_grad_enabled(False)
    connection = Connection(settings.socket_path)
    ring = RingWriter(settings.ring_name)
    try:
        engine, info, graphs = build(settings, connection, ring)
    except (Refused, CustomProcessorError) as refusal:
        return _fail(connection, str(refusal))
    except Exception as error:  # a model may break in ways that no check knows
        logger.exception("The model could not be loaded")
        return _fail(connection, f"It could not be loaded: {type(error).__name__}: {error}")
    connection.send(Ready(info))
    try:
        serve(engine, graphs, connection, ring)
    except ConnectionError as error:
        logger.info("%s", error)
    finally:
        graphs.close()
        ring.close()
    return 0


def _fail(connection: Connection, reason: str) -> int:
    """Tells the front why the engine does not run. Returns the exit status."""
    connection.send(LoadFailed(reason))
    connection.drain()
    return 1


if __name__ == "__main__":
    sys.exit(main())
