"""The rows of a call: how many a sequence takes, how long they get, and the seeds of their draws.

A sequence takes several rows of the engine where it is searched with beams or guided.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from lockstep.v1 import generation_pb2, scores_pb2

from model_service.front.checks.configuration import ResolvedConfig
from model_service.protocol import EngineInfo, NewSession
from model_service.protocol.parameters import GenerationConfig
from rpc.errors import ContextLengthExceeded, KVCacheExceeded
from wire.violations import Violations

MASK_64 = 2**64 - 1
MAX_SEED = 2**63 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15

_OFF = {"num_beams": 1, "guidance_scale": 1.0}
"""Fields that make a sequence take several rows, with the value that turns them off."""

_WITHOUT = {
    **_OFF,
    "length_penalty": 1.0,
    "early_stopping": False,
    "negative_prompt": None,
}
"""What configures them, turned off."""


# --- How many


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


# --- How long


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """Lengths of the prompts of a call.

    Attributes:
        tokens: of each prompt.
        padding: that each came with, as far as lengths count it.
    """

    tokens: list[int]
    padding: list[int]

    def left_by(self, max_length: int) -> Iterator[int]:
        """Yields the new tokens that a length leaves room for, by prompt."""
        for tokens, padding in zip(self.tokens, self.padding, strict=True):
            yield max_length - tokens - padding

    def within(self, num_new: Sequence[int], room: int) -> list[int]:
        """Returns new tokens of each row, as far as a row has room for them."""
        return [min(new, room - n) for new, n in zip(num_new, self.tokens, strict=True)]


def new_tokens(config: GenerationConfig, prompts: PromptLengths) -> list[int]:
    """Returns the new tokens that a configuration gives each row, whatever fits the context."""
    if config.max_length is not None:
        return list(prompts.left_by(config.max_length))
    return [config.max_new_tokens] * len(prompts.tokens)


def check_max_length(
    resolved: ResolvedConfig,
    prompts: PromptLengths,
    violations: Violations,
    path: str = "generation_config",
) -> None:
    """Notes a `max_length` that leaves a row no new token."""
    max_length = resolved.config.max_length
    if max_length is None or min(prompts.left_by(max_length), default=1) > 0:
        return
    longest = max_length - min(prompts.left_by(max_length))
    whose = "" if resolved.max_length_given else ", which the model's own default is not"
    violations.add(
        f"{path}.max_length", f"must be above {longest}, the length of the longest prompt{whose}"
    )


def fit_context(
    resolved: ResolvedConfig,
    prompts: PromptLengths,
    context_length: int,
    *,
    of_session: bool = False,
) -> tuple[ResolvedConfig, list[int]]:
    """Checks that every row fits the context, and lowers a default that does not.

    A default is lowered to what the shortest prompt leaves room for, so that no row's
    result depends on the length of another. A row whose default reaches the context is
    ended by that, whoever set the default: it may have more tokens than there is room
    for, so that it ends with `context_length`.

    Args:
        resolved: the configuration.
        prompts: the lengths of the rows.
        context_length: tokens that a row may have.
        of_session: whether that is the `max_length` of a session.

    Returns:
        The configuration, and the most new tokens of each row before the context ends
        it. `max_new_tokens` is the largest of these that there is room for.

    Raises:
        ContextLengthExceeded: a row does not fit.
    """
    config = resolved.config
    num_new = new_tokens(config, prompts)
    asked = resolved.max_new_tokens_given or resolved.max_length_given
    room = [context_length - tokens for tokens in prompts.tokens]
    for row, (tokens, new) in enumerate(zip(prompts.tokens, num_new, strict=True)):
        needed = new if asked else 1
        if needed > room[row]:
            raise ContextLengthExceeded(
                row=row,
                prompt_tokens=tokens,
                new_tokens=needed,
                context_tokens=context_length,
                of_session=of_session,
            )
    largest = max(prompts.within(num_new, context_length))
    if not asked:
        num_new = [
            most + 1 if new >= most else new for new, most in zip(num_new, room, strict=True)
        ]
    config = msgspec.structs.replace(
        config, max_new_tokens=largest, min_new_tokens=min(config.min_new_tokens, largest)
    )
    return replace(resolved, config=config), num_new


# --- Seeds


def random_seed() -> int:
    """Returns an unpredictable seed, in [0, 2^63)."""
    return secrets.randbits(63)


def sequence_seed(seed: int, prompt_index: int, sequence_index: int) -> int:
    """Derives the seed of one sequence of a call.

    The first sequence of the first prompt has the call's own seed. Any other has
    `mix(mix(seed + g * (prompt_index + 1)) + g * (sequence_index + 1)) mod 2^63`
    with `mix` and `g` of SplitMix64. Sent alone with the result as its seed, a
    sequence is first of its call and draws the same tokens.

    Args:
        seed: the call's seed, [0, 2^63).
        prompt_index: index of the prompt, from 0.
        sequence_index: index among the sequences of the prompt, from 0.

    Returns:
        A seed in [0, 2^63).
    """
    if prompt_index == 0 and sequence_index == 0:
        return seed
    mixed = _mix(seed + _GOLDEN_GAMMA * (prompt_index + 1))
    return _mix(mixed + _GOLDEN_GAMMA * (sequence_index + 1)) & MAX_SEED


def _mix(value: int) -> int:
    """Applies the finalizer of SplitMix64.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA
    2014; the constants are variant 13 of Stafford.
    """
    value &= MASK_64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK_64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK_64
    return value ^ (value >> 31)
