"""Beams and guidance: configurations for which one sequence takes several rows of the engine."""

from dataclasses import replace
from typing import Any

import msgspec
from lockstep.v1 import generation_pb2, scores_pb2

from model_service.front.checks.configuration import ResolvedConfig
from model_service.protocol import EngineInfo, NewSession
from rpc.errors import KVCacheExceeded
from wire.violations import Violations

_OFF = {"num_beams": 1, "guidance_scale": 1.0}
"""Fields that make a sequence take several rows, with the value that turns them off."""

_WITHOUT = {
    **_OFF,
    "length_penalty": 1.0,
    "early_stopping": False,
    "negative_prompt": None,
}
"""What configures them, turned off."""


def rows_per_prompt(resolved: ResolvedConfig) -> int:
    """Returns the rows of a step that the sequences of one prompt take together."""
    if resolved.config.num_beams > 1:
        return resolved.config.num_beams
    return resolved.num_return_sequences * _rows_together(resolved)


def takes_several_rows(resolved: ResolvedConfig) -> bool:
    """Whether a sequence is the outcome of more than one row."""
    return _rows_together(resolved) > 1


def _rows_together(resolved: ResolvedConfig) -> int:
    """Returns the rows that run together or not at all."""
    return max(resolved.config.num_beams, 2 if is_guided(resolved) else 1)


def is_guided(resolved: ResolvedConfig) -> bool:
    """Whether every sequence has a second row, that of its negative prompt."""
    return resolved.config.guidance_scale != 1.0


def check_generation(
    resolved: ResolvedConfig,
    info: EngineInfo,
    violations: Violations,
    *,
    prompt_scores: scores_pb2.ScoreSelection,
    path: str = "generation_config",
) -> None:
    """Notes what a generation cannot have together with several rows per sequence.

    Args:
        resolved: the configuration.
        info: what the model is.
        violations: what is wrong is noted here.
        prompt_scores: what is asked for about the prompt.
        path: path of the configuration in the request.
    """
    if resolved.config.num_beams > info.max_running_sequences:
        most = info.max_running_sequences
        violations.add(f"{path}.num_beams", f"must be in [1, {most}], the rows of a step")
    if not is_guided(resolved):
        return
    if resolved.config.num_beams > 1:
        violations.add(
            f"{path}.guidance_scale", "must be 1, which turns it off, together with num_beams"
        )
    if info.max_running_sequences < 2:
        violations.add(
            f"{path}.guidance_scale", "takes two rows of a step; this server's steps have one"
        )
    for name in ("scores", "processor_trace"):
        if getattr(prompt_scores, name):
            violations.add(
                f"prompt_scores.{name}",
                "has no guided scores: the negative prompt has other tokens in the prompt's places",
            )
    negative = resolved.config.negative_prompt or ()
    needed = resolved.config.max_new_tokens if resolved.max_new_tokens_given else 1
    if len(negative) + needed > info.context_length:
        violations.add(
            f"{path}.negative_prompt",
            f"has {len(negative)} tokens, which with {needed} new ones do not fit the context of "
            f"{info.context_length}",
        )


def kv_tokens(
    num_prompt_tokens: list[int],
    num_new_tokens: list[int],
    resolved: ResolvedConfig,
    info: EngineInfo,
) -> int:
    """Returns the tokens of KV cache that a generation reserves.

    Args:
        num_prompt_tokens: of each prompt.
        num_new_tokens: most tokens of each sequence, before the context ends it.
        resolved: the configuration.
        info: what the model is.

    Raises:
        KVCacheExceeded: rows that run together need more than there is.
    """
    together = [
        _kv_tokens(prompt, new, resolved, info.context_length)
        for prompt, new in zip(num_prompt_tokens, num_new_tokens, strict=True)
    ]
    if max(together) > info.kv_total_tokens:
        raise KVCacheExceeded(kv_tokens=max(together), limit_tokens=info.kv_total_tokens)
    return sum(together) * rows_per_prompt(resolved) // _rows_together(resolved)


def session_kv_tokens(session: NewSession[Any], info: EngineInfo) -> int:
    """Returns the tokens of KV cache that the rows of a session reserve.

    Raises:
        KVCacheExceeded: one session cannot have as many.
    """
    needed = session.max_length * len(session.sequences)
    if needed > info.kv_session_tokens:
        raise KVCacheExceeded(kv_tokens=needed, limit_tokens=info.kv_session_tokens)
    return needed


def _kv_tokens(
    num_prompt_tokens: int, num_new_tokens: int, resolved: ResolvedConfig, context_length: int
) -> int:
    """Returns the tokens of rows that run together or not at all."""
    config = resolved.config
    if not is_guided(resolved):
        return config.num_beams * min(num_prompt_tokens + num_new_tokens, context_length)
    negative = len(config.negative_prompt or (0,))
    room = context_length - max(num_prompt_tokens, negative)
    return num_prompt_tokens + negative + 2 * min(num_new_tokens, room)


def without_branches(
    message: generation_pb2.GenerationConfig,
    resolved: ResolvedConfig,
    violations: Violations,
    path: str = "generation_config",
) -> ResolvedConfig:
    """Turns off what only a generation has: for sessions and distributions, whose rows are given.

    A default of the model is dropped; what the request asks for is refused.

    Args:
        message: the request's configuration.
        resolved: what it was resolved to.
        violations: what is wrong is noted here.
        path: path of the configuration in the request.
    """
    for name, off in _OFF.items():
        if message.HasField(name) and getattr(message, name) != off and not message.lenient:
            violations.add(
                f"{path}.{name}",
                "is applied by Generate only: a session steps one row for each of its rows; step "
                "further rows yourself, leave it out, or set lenient",
            )
    if message.lengths_include_padding and not message.lenient:
        violations.add(
            f"{path}.lengths_include_padding",
            "has no effect here: the rows have no padding; leave it out, or set lenient",
        )
    config = msgspec.structs.replace(resolved.config, **_WITHOUT)
    return replace(resolved, config=config)
