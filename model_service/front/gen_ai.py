"""What the span of a call says of its model and generation, as the GenAI conventions name it."""

from collections.abc import Iterable

from model_service.front.metrics.generation_metrics import finish_label
from model_service.protocol import Finish
from model_service.protocol.parameters import GenerationConfig
from rpc import tracing

# The conventions have a name for these; other operations keep ours.
_OPERATIONS = dict.fromkeys(("generate", "beam_search", "continue_session"), "text_completion")


def describe_request(model: str, operation: str, config: GenerationConfig | None = None) -> None:
    """Says what is asked of which model, and of a generation with which configuration.

    Args:
        model: name of the model.
        operation: what is done, as metrics have it.
        config: of a generation.
    """
    trace = tracing.current()
    if trace is None or not trace.recorded:
        return
    trace.describe(
        {
            "gen_ai.provider.name": "lockstep",
            "gen_ai.operation.name": _OPERATIONS.get(operation, operation),
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
        }
    )
    if config is not None:
        trace.describe({"gen_ai.request.max_tokens": config.max_new_tokens})
    if config is not None and config.do_sample:
        trace.describe(
            {
                "gen_ai.request.temperature": config.temperature,
                "gen_ai.request.top_k": config.top_k,
                "gen_ai.request.top_p": config.top_p,
            }
        )


def describe_ends(finishes: Iterable[Finish]) -> None:
    """Says how the sequences of a generation have ended."""
    trace = tracing.current()
    if trace is not None and trace.recorded:
        reasons = [finish_label(finish.reason) for finish in finishes]
        trace.describe({"gen_ai.response.finish_reasons": reasons})
