"""How many tokens each row may get: `max_new_tokens`, `max_length`, padding and the context."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from model_service.front.checks.configuration import ResolvedConfig
from model_service.protocol.parameters import GenerationConfig
from rpc.errors import ContextLengthExceeded
from wire.violations import Violations


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
    resolved: ResolvedConfig, prompts: PromptLengths, context_length: int
) -> tuple[ResolvedConfig, list[int]]:
    """Checks that every row fits the context, and lowers a default that does not.

    A default is lowered to what the shortest prompt leaves room for, so that no row's
    result depends on the length of another. A row whose default reaches the context is
    ended by that, whoever set the default: it may have more tokens than there is room
    for, so that it ends with `context_length`.

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
                row=row, prompt_tokens=tokens, new_tokens=needed, context_tokens=context_length
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
