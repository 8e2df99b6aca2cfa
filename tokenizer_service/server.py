"""Composition root: puts the tokenizer service together and runs it.

The ports are bound first, so that probes and callers get an answer while the
tokenizer loads.
"""

import asyncio
import gc
import os
import sys
from contextlib import AsyncExitStack

import structlog

import checkpoints
from checkpoints import CheckpointError
from rpc import json_lines, program, span_collector
from rpc.errors import StoreUnavailable
from rpc.identity import Allowance
from rpc.metrics import process_registry
from rpc.server import Server
from tokenizer_service.chat.chat import ChatTemplates
from tokenizer_service.chat.template_renderer import RenderLimits, TemplateRenderer
from tokenizer_service.growth import model_rows
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.growth.model_rows import ModelRows
from tokenizer_service.growth.replica_follower import ReplicaFollower
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.rpcs import servicers
from tokenizer_service.rpcs.service import RequestLimits, Service
from tokenizer_service.settings import TokenizerSettings
from tokenizer_service.store import Store, StoreError
from tokenizer_service.text import loading, tokenizer_files
from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.text.tokenizer_files import TokenizerFiles, TokenizerFilesError
from tokenizer_service.worker_pool import PoolLimits, WorkerPool
from vocabulary import BrokenChainError

SERVICES = ("lockstep.v1.TokenizerService", "lockstep.v1.VocabularyAdminService")

# How long a thread may keep the interpreter that another one waits for. A call waits for it
# several times; while a change of the vocabulary is worked out, Python's 5 ms add up.
_SWITCH_INTERVAL_S = 0.001

# Requests of the largest size that wait for memory. Each is held several times over: as it
# came, as a message and as texts.
_WAITING_MESSAGES = 8

# What an operator can put right: one line on stderr, no traceback.
START_ERRORS = (
    CheckpointError,
    TokenizerFilesError,
    StoreError,
    StoreUnavailable,
    BrokenChainError,
    OSError,
)

log = structlog.stdlib.get_logger("tokenizer_service.server")


class TokenizerServer:
    """The whole service in one object. Create and run it in one event loop."""

    def __init__(self, settings: TokenizerSettings) -> None:
        """Wires the server. Nothing is bound, started or read yet."""
        self._settings = settings
        self._registry = process_registry()
        self._resources = AsyncExitStack()
        self._service: asyncio.Future[Service] = asyncio.get_running_loop().create_future()
        tracer = span_collector.tracer(os.environ, "lockstep-tokenizer")
        self.server = Server(settings, self._registry, SERVICES, tracer)
        servicers.register(self.server.grpc, self._service)

    async def run(self) -> None:
        """Serves until the process is told to stop.

        Raises:
            CheckpointError: the model is not found or refused.
            TokenizerFilesError: its tokenizer cannot be served.
            StoreError: the store cannot be used.
            BrokenChainError: the store was damaged.
            OSError: a port is taken, or a file cannot be read.
        """
        await self.server.start()
        async with self._resources:
            await self._load()
            self.server.set_ready(True)
            await self.server.serve_until_stopped()

    async def _load(self) -> None:
        settings = self._settings
        files, base, rows = await asyncio.to_thread(_read, settings)
        metrics = TokenizerMetrics(
            self._registry,
            base.reference.tokenizer_id,
            base_size=base.reference.size,
        )
        vocabulary = await self._open_vocabulary(base, metrics)
        pool = WorkerPool(
            PoolLimits(
                threads=settings.num_threads,
                max_pending=settings.max_pending_calls,
                max_working_bytes=settings.max_working_bytes,
                max_waiting_bytes=_WAITING_MESSAGES * settings.max_message_bytes,
            ),
            observe_wait=metrics.waited,
        )
        self._resources.callback(pool.close)
        renderer = TemplateRenderer(
            files.chat_templates,
            workers=settings.template_workers,
            limits=RenderLimits(settings.template_timeout_s, settings.template_memory_bytes),
        )
        self._resources.push_async_callback(renderer.close)
        await renderer.start()
        service = Service(
            files=files,
            vocabulary=vocabulary,
            templates=ChatTemplates(files.chat_templates, renderer, pool),
            model_rows=rows,
            pool=pool,
            metrics=metrics,
            limits=RequestLimits(
                max_items=settings.max_items,
                max_text_bytes=settings.max_text_bytes,
                max_message_bytes=settings.max_message_bytes,
                max_padded_cells=settings.max_padded_cells,
            ),
            max_response_bytes=settings.max_response_bytes,
            max_added_tokens=settings.max_added_tokens,
            additions=Allowance(
                "added_tokens_per_hour", settings.quota_added_tokens_per_hour, period_s=3600
            ),
            draining=self.server.lifecycle.draining,
        )
        self._service.set_result(service)
        # What was loaded stays, and need not be looked at by every full collection, during
        # which nothing else runs.
        gc.collect()
        gc.freeze()
        metrics.loaded()

    async def _open_vocabulary(self, base: Tokenizer, metrics: TokenizerMetrics) -> LiveVocabulary:
        store = await asyncio.to_thread(
            Store,
            self._settings.store_url(base.reference.tokenizer_id),
            base.reference,
            observe=metrics.store,
            password_file=self._settings.store_password_file,
        )
        try:
            vocabulary = await asyncio.to_thread(
                LiveVocabulary,
                base,
                store,
                metrics,
                max_added_tokens=self._settings.max_added_tokens,
                catch_up_timeout_s=self._settings.catch_up_timeout_s,
            )
        except BrokenChainError as error:
            raise StoreError(f"{error} {store.database.damaged()}") from None
        self._resources.push_async_callback(vocabulary.close)
        self.server.describe_health(lambda: vocabulary.current.reference.described())
        if listener := store.database.listener(self._settings.store_poll_interval_s):
            self._resources.push_async_callback(ReplicaFollower(vocabulary, listener).close)
        newest = vocabulary.current.reference
        log.info("loaded", revision=newest.revision, fingerprint=newest.fingerprint)
        return vocabulary


def _read(settings: TokenizerSettings) -> tuple[TokenizerFiles, Tokenizer, ModelRows]:
    checkpoint = checkpoints.resolve(settings.model, need="tokenizer")
    files = tokenizer_files.read(checkpoint.folder)
    base = loading.load(files, settings.id_for(checkpoint.name))
    return files, base, model_rows.read(checkpoint.folder)


async def serve(settings: TokenizerSettings) -> int | str:
    """Runs the service. Returns the exit code, or why it cannot, which the log says too."""
    try:
        await TokenizerServer(settings).run()
    except START_ERRORS as error:
        log.error("cannot_start", reason=str(error))
        return f"python -m tokenizer_service: {error}"
    return 0


def main() -> None:
    """Reads the settings and serves."""
    settings = TokenizerSettings.from_command_line()
    json_lines.configure(settings.log_level)
    json_lines.capture()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    program.run(serve(settings))
