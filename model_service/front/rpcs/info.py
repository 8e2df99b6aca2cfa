"""`ModelInfoService`: what is served, what it can do, and how busy it is."""

from collections.abc import Iterable, Mapping

from lockstep.v1 import (
    generation_pb2,
    model_info_service_pb2,
    model_info_service_pb2_grpc,
    tensor_pb2,
    vocabulary_pb2,
)

from model_service.front.checks.configuration import effective_message, resolve
from model_service.front.checks.processor_catalog import catalog
from model_service.front.generations import Generations
from model_service.front.rpcs import results
from model_service.front.served_model import ServedModel
from model_service.front.sessions.registry import SessionRegistry
from model_service.protocol import GraphState
from model_service.protocol.parameters import PARAMETERS
from rpc import distribution
from rpc.handlers import Context
from wire.violations import Violations
from wire.vocabulary import vocabulary_ref

_GRAPH_STATES: dict[GraphState, model_info_service_pb2.DecodeGraphState] = {
    "off": model_info_service_pb2.DECODE_GRAPH_STATE_OFF,
    "compiling": model_info_service_pb2.DECODE_GRAPH_STATE_COMPILING,
    "ready": model_info_service_pb2.DECODE_GRAPH_STATE_READY,
    "unavailable": model_info_service_pb2.DECODE_GRAPH_STATE_UNAVAILABLE,
}


class InfoServicer(model_info_service_pb2_grpc.ModelInfoServiceServicer):
    """Reads only."""

    def __init__(
        self,
        model: ServedModel,
        sessions: SessionRegistry,
        generations: Generations,
        *,
        limits: model_info_service_pb2.ModelLimits,
        methods: Mapping[str, bool],
    ) -> None:
        """Describes a model.

        Args:
            model: the model.
            sessions: its sessions.
            generations: plans what it would generate.
            limits: limits of this server; `max_kv_tokens` is filled in here.
            methods: full method names, and whether each is offered.
        """
        self._model = model
        self._sessions = sessions
        self._generations = generations
        self._limits = limits
        self._methods = methods

    async def GetModelInfo(
        self, request: model_info_service_pb2.GetModelInfoRequest, context: Context
    ) -> model_info_service_pb2.GetModelInfoResponse:
        vocabulary = self._model.vocabulary.newest
        info = self._model.info_at(vocabulary)
        default = resolve(
            generation_pb2.GenerationConfig(),
            info.default_config,
            Violations(),
            vocabulary_size=vocabulary.size,
            max_return_sequences=1,
        )
        return model_info_service_pb2.GetModelInfoResponse(
            model_id=self._model.name,
            model_fingerprint=self._model.fingerprint,
            architecture=info.architecture,
            dtype=info.dtype,
            parameter_count=info.parameter_count,
            hidden_size=info.hidden_size,
            layer_count=info.layer_count,
            context_length=info.context_length,
            embedding_row_count=info.embedding_row_count,
            vocabulary=vocabulary_ref(vocabulary),
            vocabulary_followed=self._model.vocabulary.followed,
            vocabulary_following=results.vocabulary_following(self._model.following),
            tied_embeddings=info.tied_embeddings,
            eos_token_ids=info.eos_token_ids,
            bos_token_id=info.bos_token_id,
            pad_token_id=info.pad_token_id,
            default_generation_config=effective_message(default, seed=None),
            device_map=info.device_map,
            execution_path=info.execution_path,
            boot_id=self._model.boot_id,
            server_version=distribution.installed(),
            determinism=results.determinism(self._model.engine.info, self._model.fingerprint),
            decode_graph_state=_GRAPH_STATES[self._model.engine.graphs.state],
            decode_graph_reason=self._model.engine.graphs.reason,
            assistant_model_id=self._model.assistant,
        )

    async def GetCapabilities(
        self, request: model_info_service_pb2.GetCapabilitiesRequest, context: Context
    ) -> model_info_service_pb2.GetCapabilitiesResponse:
        limits = model_info_service_pb2.ModelLimits()
        limits.CopyFrom(self._limits)
        limits.max_kv_tokens = self._model.engine.info.kv_total_tokens
        fields = generation_pb2.GenerationConfig.DESCRIPTOR.fields_by_name
        return model_info_service_pb2.GetCapabilitiesResponse(
            methods={name: _level(offered) for name, offered in self._methods.items()},
            generation_fields={name: _level(name in PARAMETERS) for name in fields},
            score_dtypes=[
                tensor_pb2.DATA_TYPE_FLOAT32,
                tensor_pb2.DATA_TYPE_FLOAT16,
                tensor_pb2.DATA_TYPE_BFLOAT16,
            ],
            limits=limits,
            determinism_level=generation_pb2.DETERMINISM_LEVEL_SEEDED,
            vocabulary=self._newest(),
        )

    async def ListLogitsProcessors(
        self, request: model_info_service_pb2.ListLogitsProcessorsRequest, context: Context
    ) -> model_info_service_pb2.ListLogitsProcessorsResponse:
        return model_info_service_pb2.ListLogitsProcessorsResponse(
            processors=[
                model_info_service_pb2.LogitsProcessorInfo(
                    name=processor.name,
                    description=processor.description,
                    arguments_schema_json=processor.arguments_schema_json,
                    warper=processor.warper,
                    repeatable=processor.repeatable,
                )
                for processor in catalog(self._model.engine.info).values()
            ],
            vocabulary=self._newest(),
        )

    async def GetLoad(
        self, request: model_info_service_pb2.GetLoadRequest, context: Context
    ) -> model_info_service_pb2.GetLoadResponse:
        engine = self._model.engine
        return model_info_service_pb2.GetLoadResponse(
            running_sequence_count=engine.load.running,
            waiting_sequence_count=engine.load.waiting,
            session_count=len(self._sessions),
            kv_used_token_count=engine.load.kv_used_tokens,
            kv_total_token_count=engine.info.kv_total_tokens,
            tokens_per_second=self._model.metrics.generations.token_rate.per_second(),
            vocabulary=self._newest(),
        )

    async def ValidateRequest(
        self, request: model_info_service_pb2.ValidateRequestRequest, context: Context
    ) -> model_info_service_pb2.ValidateRequestResponse:
        plan = await self._generations.plan(request.generate_request)
        config = plan.effective_config
        if plan.resolved.seed is None:
            config.ClearField("seed")  # the one drawn here is not the one a real call draws
        return model_info_service_pb2.ValidateRequestResponse(
            effective_config=config,
            applied_processors=plan.applied_processors,
            kv_token_count=plan.kv_tokens,
            max_response_bytes=plan.response_bytes,
            vocabulary=vocabulary_ref(plan.vocabulary),
        )

    def _newest(self) -> vocabulary_pb2.VocabularyRef:
        return vocabulary_ref(self._model.vocabulary.newest)


def offered_methods(servicers: Iterable[type]) -> dict[str, bool]:
    """Says which methods of some services are offered.

    Args:
        servicers: servicer classes; a method counts as offered when the class
            overrides that of its generated base.

    Returns:
        Full method name, for example `lockstep.v1.ModelService/Generate`, to
        whether it is offered.
    """
    offered = {}
    for servicer in servicers:
        base = next(c for c in servicer.__mro__ if c.__module__.endswith("_pb2_grpc"))
        service = base.__name__.removesuffix("Servicer")
        for name, method in vars(base).items():
            if callable(method):
                offered[f"lockstep.v1.{service}/{name}"] = getattr(servicer, name) is not method
    return offered


def _level(offered: bool) -> model_info_service_pb2.SupportLevel:
    if offered:
        return model_info_service_pb2.SUPPORT_LEVEL_SUPPORTED
    return model_info_service_pb2.SUPPORT_LEVEL_UNSUPPORTED
