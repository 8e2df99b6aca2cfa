"""The model that is served, as its servicers see it: engine, vocabulary, limits, identity."""

import secrets
from dataclasses import dataclass, field
from typing import TypeVar

from lockstep.v1 import logits_session_service_pb2, model_service_pb2

from model_service.front.checks.plan import Asked, Plan, PlanLimits, plan
from model_service.front.checks.response_size import ResponseLimits
from model_service.front.engine_client.client import EngineClient
from model_service.front.metrics import ModelMetrics
from model_service.front.quotas import Quotas
from model_service.front.vocabulary.following import Following
from model_service.front.vocabulary.table import VocabularyTable
from model_service.protocol import EngineInfo
from model_service.protocol.parameters import GenerationConfig
from rpc.errors import NotImplemented_, Paused
from vocabulary import Reference
from wire.prompts import Bounds

C = TypeVar("C")

NamesVocabulary = (
    model_service_pb2.GenerateRequest
    | model_service_pb2.ComputeLogitsRequest
    | model_service_pb2.ScoreRequest
    | logits_session_service_pb2.OpenSessionRequest
    | logits_session_service_pb2.RebindSessionRequest
)
"""Requests with a vocabulary that their ids belong to."""


@dataclass(slots=True)
class ServedModel:
    """One model. Owned by the event loop.

    Attributes:
        name: its name.
        engine: runs it.
        vocabulary: revisions that it has.
        following: how far they have kept up with the tokenizer service's.
        metrics: where calls are recorded.
        quotas: what each caller may use.
        limits: bounds of a generation.
        response_limits: how large answers may be.
        assistant: name of the model that drafts tokens, if there is one.
        fingerprint: SHA-256 over the checkpoint's files, once known.
        paused: whether an operator has asked for no new work.
        boot_id: changes with every start; sessions live as long as it.
    """

    name: str
    engine: EngineClient
    vocabulary: VocabularyTable
    following: Following
    metrics: ModelMetrics
    quotas: Quotas
    limits: PlanLimits
    response_limits: ResponseLimits
    assistant: str = ""
    fingerprint: str = ""
    paused: bool = False
    boot_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def bounds(self) -> Bounds:
        """How many rows a call may have, and how long."""
        return Bounds(self.limits.max_sequences_per_call, self.engine.info.context_length)

    def check_open(self, num_tokens: int = 1) -> None:
        """Checks that new work is taken from a caller.

        Args:
            num_tokens: tokens that it gives to begin with.

        Raises:
            Paused: an operator has asked for no new work.
            QuotaExceeded: the caller has used its tokens.
        """
        if self.paused:
            raise Paused
        self.quotas.tokens.check(num_tokens)

    def check_stop_strings(self, config: GenerationConfig) -> None:
        """Checks that the engine can find the stop strings of a configuration.

        Raises:
            NotImplemented_: it does not know the bytes of tokens.
        """
        if not config.stop_strings or self.vocabulary.spelled:
            return
        reason = "the tokens of its tokenizer have no bytes of their own"
        if not self.vocabulary.followed:
            reason = "it follows no tokenizer service, start it with --tokenizer-address"
        elif self.vocabulary.refused or self.vocabulary.unreachable:
            reason = f"it has not followed the tokenizer service at {self.vocabulary.address} yet"
        raise NotImplemented_("generation_config.stop_strings", f"{reason}; or use stop_sequences")

    def info_at(self, vocabulary: Reference) -> EngineInfo:
        """Describes the model, and its defaults, as requests of a revision see it."""
        return self.vocabulary.described(self.engine.info, vocabulary.revision)

    async def resolve_vocabulary(self, request: NamesVocabulary) -> Reference:
        """Finds the revision that a request means, see `VocabularyTable.resolve`."""
        named = request.vocabulary if request.HasField("vocabulary") else None
        return await self.vocabulary.resolve(named)

    def plan(self, asked: Asked[C], vocabulary: Reference) -> Plan[C]:
        """Checks a call.

        Args:
            asked: the call.
            vocabulary: the revision that its ids belong to.

        Raises:
            ServiceError: it is refused, see `checks.plan`.
        """
        planned = plan(asked, vocabulary, self.info_at(vocabulary), self.limits)
        self.check_stop_strings(planned.resolved.config)
        return planned
