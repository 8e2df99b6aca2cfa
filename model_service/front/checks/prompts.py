"""Prompts of a request as the engine takes them: lists of ids, and the padding they came with."""

from lockstep.v1 import tokens_pb2

from model_service.front.checks.configuration import ResolvedConfig
from wire import prompts
from wire.prompts import Bounds
from wire.violations import Violations


def read_prompts(
    batch: tokens_pb2.PromptBatch,
    violations: Violations,
    bounds: Bounds,
    *,
    allow_empty_rows: bool = False,
) -> list[list[int]]:
    """Reads a batch in either form, as `wire.prompts` does, and copies its rows.

    Raises:
        ContextLengthExceeded: a row is longer than the context.
    """
    rows = prompts.read_prompts(batch, violations, bounds, allow_empty_rows=allow_empty_rows)
    return [list(row) for row in rows]


def read_continuations(
    batch: tokens_pb2.TokenBatch, violations: Violations, bounds: Bounds
) -> list[list[int]]:
    """Reads the tokens that follow each prompt, and copies their rows.

    Raises:
        ContextLengthExceeded: a row is longer than the context.
    """
    return [list(row) for row in prompts.read_ragged(batch, "continuations", violations, bounds)]


def read_padding(
    batch: tokens_pb2.PromptBatch,
    rows: list[list[int]],
    resolved: ResolvedConfig,
    violations: Violations,
    path: str = "generation_config",
) -> list[int]:
    """Returns the padding that each row came with, as far as lengths count it.

    Args:
        batch: the prompts.
        rows: what they were read as.
        resolved: whether lengths count padding.
        violations: a prompt without padding to count is noted here.
        path: of the configuration in the request.
    """
    if not resolved.config.lengths_include_padding:
        return [0] * len(rows)
    if not batch.HasField("padded_batch"):
        if not resolved.lenient:
            violations.add(
                f"{path}.lengths_include_padding",
                "has no effect without a padded_batch; leave it out, or set lenient",
            )
        return [0] * len(rows)
    width = batch.padded_batch.input_ids.shape[-1] if rows else 0
    return [width - len(row) for row in rows]
