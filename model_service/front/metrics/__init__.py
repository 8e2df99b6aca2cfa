"""What the model service counts, by what it is about."""

from model_service.front.metrics.model_metrics import ModelMetrics as ModelMetrics
