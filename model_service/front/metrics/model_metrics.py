"""All metrics of the model service, apart from those of its RPCs."""

from prometheus_client import CollectorRegistry

from model_service.front.metrics.engine_metrics import EngineMetrics
from model_service.front.metrics.families import Families
from model_service.front.metrics.generation_metrics import GenerationMetrics
from model_service.front.metrics.session_metrics import SessionMetrics
from model_service.front.metrics.vocabulary_metrics import VocabularyMetrics
from rpc.metrics import build_info


class ModelMetrics:
    """Declared as a whole. The registry is passed in, so servers in one test do not collide.

    Attributes:
        engine: loading, steps, the engine's process.
        generations: tokens, sequences and their latencies.
        sessions: sessions and their steps.
        vocabulary: revisions, and how they are followed.
    """

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        """Declares every metric.

        Args:
            registry: where they are collected.
            model_name: value of the label `model_name`.
        """
        families = Families(registry, model_name)
        self.engine = EngineMetrics(families)
        self.generations = GenerationMetrics(families)
        self.sessions = SessionMetrics(families)
        self.vocabulary = VocabularyMetrics(families)
        build_info(registry, "lockstep_model_build", "torch", "transformers", "grpcio")
