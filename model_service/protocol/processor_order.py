"""Which processors and warpers a configuration switches on, with their arguments, in order.

The order is that of the table (`parameters.py`), or of the configuration's own
`processors`. The front names what is applied to callers, and the engine builds it.
"""

from model_service.protocol.parameters import ENDS, PROCESSORS, GenerationConfig
from model_service.protocol.processor_arguments import Arguments

GUIDANCE = "guidance_scale"
"""Applied before all others: it reads the distribution of another row, which no argument names."""

NEED_ENDS = frozenset(row.name for row in PROCESSORS if ENDS in row.needs)
"""Those that change nothing without an end-of-sequence id."""


def in_default_order(config: GenerationConfig) -> list[tuple[str, Arguments]]:
    """Returns what the fields of a configuration switch on, in order, by name."""
    return [
        (row.name, row.of(config))
        for row in PROCESSORS
        if row.is_on(config) and all(need.is_met(config) for need in row.needs)
    ]


def applied_processors(config: GenerationConfig) -> list[str]:
    """Names everything that is applied to a sequence's logits, in order."""
    first = [GUIDANCE] if config.guidance_scale != 1.0 else []
    if config.processors:
        return first + [spec.name for spec in config.processors]
    return first + [name for name, _ in in_default_order(config)]
