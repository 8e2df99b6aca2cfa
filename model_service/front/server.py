"""Composition root: puts the model service together and runs it.

The ports are bound first, so that probes and callers get an answer while the
model loads. When the engine is lost the process ends with an exit code other
than 0, and its supervisor starts it again.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from functools import partial

import structlog
from lockstep.v1 import (
    logits_session_service_pb2_grpc,
    model_admin_service_pb2_grpc,
    model_info_service_pb2_grpc,
    model_service_pb2_grpc,
)

from checkpoints import CheckpointError
from model_service.front.checks.plan import PlanLimits
from model_service.front.checks.sessions import SessionTerms
from model_service.front.engine_client.client import EngineClient, LoadError
from model_service.front.engine_client.process import EngineProcess, engine_environment
from model_service.front.generations import Generations
from model_service.front.launch import (
    engine_settings,
    model_limits,
    obtain,
    response_limits,
    short_name,
    tokenizer_address,
)
from model_service.front.metrics import ModelMetrics
from model_service.front.quotas import Quotas
from model_service.front.rpcs.admin import AdminServicer
from model_service.front.rpcs.generate import ModelServicer
from model_service.front.rpcs.info import InfoServicer, offered_methods
from model_service.front.rpcs.session_token import SessionTokenInterceptor
from model_service.front.rpcs.sessions import SessionServicer
from model_service.front.served_model import ServedModel
from model_service.front.sessions import replica
from model_service.front.sessions.registry import SessionRegistry
from model_service.front.sessions.replica import Replica
from model_service.front.settings import ModelSettings
from model_service.front.vocabulary.follower import Follower
from model_service.front.vocabulary.following import Following
from model_service.front.vocabulary.table import VocabularyTable
from rpc import json_lines, program, span_collector
from rpc.control_groups import available_cores
from rpc.metrics import process_registry
from rpc.server import Server
from vocabulary import Reference, tokenizer_id_of

ENGINE_MODULE = "model_service.engine.process"
SESSIONS = "lockstep.v1.LogitsSessionService"
SERVICES = (
    "lockstep.v1.ModelService",
    SESSIONS,
    "lockstep.v1.ModelInfoService",
    "lockstep.v1.ModelAdminService",
)

# Methods that begin something new in the engine, and those that go on with an open session.
BEGINNING = (
    *(f"/lockstep.v1.ModelService/{name}" for name in ("Generate", "GenerateStream")),
    *(f"/lockstep.v1.ModelService/{name}" for name in ("Score", "ComputeLogits")),
    f"/{SESSIONS}/OpenSession",
)
CONTINUING = tuple(
    f"/{SESSIONS}/{name}"
    for name in (
        *("Step", "StepStream", "Truncate", "SelectRows", "RebindSession"),
        *("GetSession", "ListSessions", "TouchSession", "CloseSession"),
    )
)

EXIT_FAILED = 1
PROGRAM = "python -m model_service"
LAST_ANSWERS_S = 0.5

# Why a service that has started is not ready.
PAUSED, CONFLICT = "paused", "conflict"

log = structlog.stdlib.get_logger("model_service.front.server")


class ModelServer:
    """The whole service in one object. Create and run it in one event loop.

    Attributes:
        server: its ports.
        engine: its engine.
    """

    def __init__(
        self,
        settings: ModelSettings,
        environment: Mapping[str, str],
        *,
        engine_module: str = ENGINE_MODULE,
    ) -> None:
        """Wires everything. Nothing is bound, started or read yet.

        Args:
            settings: the settings.
            environment: variables that the engine process inherits.
            engine_module: what is run as the engine process.
        """
        self._settings = settings
        self._environment = environment
        self._replica = Replica(settings.replica, settings.replica_address)
        registry = process_registry()
        self._metrics = ModelMetrics(registry, short_name(settings.model))
        tracer = span_collector.tracer(environment, "lockstep-model")
        self.server = Server(
            settings,
            registry,
            SERVICES,
            tracer,
            interceptors=[SessionTokenInterceptor(self._replica)],
            continuing=CONTINUING,
            check_room=self._check_room,
            expects_calls=lambda: self._sessions.used_within(settings.session_drain_silence_s),
        )
        process = EngineProcess(
            engine_module,
            engine_environment(environment, settings.threads or available_cores()),
            ring_bytes=settings.ring_bytes,
        )
        self.engine = EngineClient(
            process,
            self._metrics,
            max_running_sequences=settings.max_running_sequences,
            max_waiting_sequences=settings.max_waiting_sequences,
            quota_sequences=settings.quota_sequences,
            buffer_bytes=settings.stream_buffer_bytes,
            stream_stall_timeout_s=settings.stream_stall_timeout_s,
            engine_stall_timeout_s=settings.engine_stall_timeout_s,
        )
        self._tokenizer = tokenizer_address(settings)
        vocabulary = VocabularyTable(
            followed=self._tokenizer is not None,
            wait_s=settings.vocabulary_wait_s,
            address=settings.tokenizer_address,
        )
        quotas = Quotas(
            self.engine,
            sessions=settings.quota_sessions,
            kv_percent=settings.quota_kv_percent,
            tokens_per_minute=settings.quota_tokens_per_minute,
        )
        self._model = ServedModel(
            name=settings.model,
            engine=self.engine,
            vocabulary=vocabulary,
            following=Following(vocabulary),
            metrics=self._metrics,
            quotas=quotas,
            limits=PlanLimits(settings.max_sequences_per_call, settings.max_selected_tokens),
            response_limits=response_limits(settings),
        )
        self._metrics.vocabulary.following(self._model.following)
        self.server.describe_health(self._model.following.described)
        self._sessions = SessionRegistry(
            self.engine,
            self._metrics,
            quotas,
            self._replica,
            max_sessions=settings.max_sessions,
            max_rows=settings.max_session_rows,
        )
        self._register_servicers()

    def _check_room(self, method: str) -> None:
        if method in BEGINNING:
            with self._metrics.generations.count_rejections():
                self.engine.check_room()

    def _register_servicers(self) -> None:
        settings, grpc_server = self._settings, self.server.grpc
        terms = SessionTerms(
            ttl_s=settings.session_ttl_s,
            max_ttl_s=settings.max_session_ttl_s,
            new_tokens=settings.session_new_tokens,
            new_id=self._replica.new_session_id,
        )
        generations = Generations(self._model, self._sessions, terms)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(self._model, generations), grpc_server
        )
        logits_session_service_pb2_grpc.add_LogitsSessionServiceServicer_to_server(
            SessionServicer(
                self._model,
                self._sessions,
                terms,
                lifecycle=self.server.lifecycle,
            ),
            grpc_server,
        )
        classes = (ModelServicer, SessionServicer, InfoServicer, AdminServicer)
        model_info_service_pb2_grpc.add_ModelInfoServiceServicer_to_server(
            InfoServicer(
                self._model,
                self._sessions,
                generations,
                limits=model_limits(settings),
                methods=offered_methods(classes),
            ),
            grpc_server,
        )
        model_admin_service_pb2_grpc.add_ModelAdminServiceServicer_to_server(
            AdminServicer(self._model, report_paused=partial(self.server.set_withheld, PAUSED)),
            grpc_server,
        )

    async def run(self) -> int | str:
        """Serves until told to stop. Returns the exit code, or why the model is not served.

        Raises:
            OSError: a port is taken.
        """
        try:
            return await self._run()
        except (CheckpointError, LoadError) as error:  # said last, where one looks for it
            log.error("model_not_served", model=self._settings.model, reason=str(error))
            return f"{PROGRAM}: {error}"

    async def _run(self) -> int:
        await self.server.start()
        self._name_replica()
        self._say_whom_it_follows()
        serving = asyncio.create_task(self.server.serve_until_stopped())
        working = asyncio.create_task(self._work())
        try:
            await asyncio.wait([serving, working], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return 0
            self.server.set_ready(False)
            await asyncio.sleep(LAST_ANSWERS_S)  # calls that just failed are told why
            self.server.drain()
            await serving
            return working.result()
        finally:
            working.cancel()
            await asyncio.gather(serving, working, return_exceptions=True)
            await self.engine.stop()

    def _name_replica(self) -> None:
        if not self._replica.name:
            host, port = socket.gethostname(), self.server.port
            self._replica.name = replica.default_name(self._environment, host, port)
        log.info("replica", name=self._replica.name, address=self._settings.replica_address)

    def _say_whom_it_follows(self) -> None:
        if self._tokenizer is None:
            log.info("follows_nobody", reason="--tokenizer-address is none: no token can be added")
            return
        waits = "is waited for" if self._settings.awaits_tokenizer else "is not waited for"
        log.info("follows_tokenizer_service", address=self._tokenizer.target, at_start=waits)

    async def _work(self) -> int:
        """Loads the model and keeps it served until the engine is lost. Returns the exit code.

        Raises:
            CheckpointError: the checkpoint cannot be had.
            LoadError: the model cannot be loaded.
        """
        follower = await self._load()
        tasks = [
            asyncio.create_task(self._announce(follower)),
            asyncio.create_task(self._sessions.expire_forever()),
            asyncio.create_task(self._wait_until_lost()),
        ]
        if follower is not None:
            tasks.append(asyncio.create_task(follower.run()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what a bug raised
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return EXIT_FAILED

    async def _announce(self, follower: Follower | None) -> None:
        """Opens the server once the vocabulary has caught up."""
        if follower is not None:
            await follower.caught_up.wait()
        self.server.set_ready(True)
        log.info("ready", model=self._model.name, load_s=round(self.engine.info.load_s, 3))
        await self.engine.lost.wait()

    async def _wait_until_lost(self) -> None:
        await self.engine.lost.wait()
        self._metrics.engine.lost()

    async def _load(self) -> Follower | None:
        """Obtains the checkpoint and starts the engine with it.

        Returns:
            What follows the tokenizer service, or None when none is followed.

        Raises:
            CheckpointError: the checkpoint cannot be had.
            LoadError: the model cannot be loaded.
        """
        named = self._settings
        model = await asyncio.to_thread(obtain, named.model, named.adapter, named.assistant_model)
        checkpoint, base = model.checkpoint, model.base
        self._model.name = checkpoint.name
        self._model.assistant = model.assistant.name if model.assistant else ""
        hashing = asyncio.create_task(asyncio.to_thread(lambda: model.fingerprint))
        info = await self.engine.start(engine_settings(self._settings, model))
        self._model.fingerprint = await hashing
        self._model.following.reserved_rows = info.reserved_rows
        fingerprint = base.fingerprint if base else ""
        own = Reference(tokenizer_id_of(checkpoint.name), 0, fingerprint, info.vocabulary_size)
        if self._tokenizer is not None:
            # Stop strings of the model's own are found in bytes that only the service knows.
            waits = self._settings.awaits_tokenizer or bool(info.default_config.stop_strings)
            return Follower(
                self._tokenizer,
                base,
                self.engine,
                self._metrics,
                self._model.following,
                report_conflict=partial(self.server.set_withheld, CONFLICT),
                meanwhile=None if waits else own,
            )
        if info.default_config.stop_strings:
            raise LoadError(
                "generation_config.json sets stop_strings, which need a tokenizer service: start "
                "with --tokenizer-address, or remove them from the file."
            )
        self._model.vocabulary.append(own)
        self._metrics.vocabulary.served(0, info.vocabulary_size)
        return None


async def serve(settings: ModelSettings) -> int | str:
    """Runs the service. Returns the exit code, or why it cannot, which the log says too."""
    try:
        return await ModelServer(settings, os.environ).run()
    except OSError as error:  # a port, or a TLS file
        log.error("cannot_start", reason=str(error))
        return f"{PROGRAM}: {error}"


def main() -> None:
    """Reads the settings and serves."""
    settings = ModelSettings.from_command_line()
    json_lines.configure(settings.log_level)
    json_lines.capture()
    program.run(serve(settings))
