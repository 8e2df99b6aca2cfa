"""Processors that the operator adds: modules named at start, never code from a request.

A module has `LOGITS_PROCESSORS`, a sequence of `CustomProcessor`. docs/processors.md
has an example.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessor

from model_service.engine.sampling.row import Row
from model_service.protocol.processor_arguments import Arguments, TokenId
from model_service.protocol.processor_description import ProcessorDescription, describe

__all__ = ["Arguments", "CustomProcessor", "Row", "TokenId", "load"]

ATTRIBUTE = "LOGITS_PROCESSORS"

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


class CustomProcessorError(Exception):
    """A module cannot be used. The message says why."""


@dataclass(frozen=True, slots=True)
class CustomProcessor:
    """A processor that requests may name.

    Attributes:
        name: its name, with a dot (`acme.banned_words`): names without one are ours.
        arguments: the class of its arguments, a subclass of `Arguments`. Its
            docstring says to callers what the processor does, and its fields have
            the ranges (`msgspec.Meta`).
        build: makes the processor of one sequence from its arguments and what is
            known about the sequence. What it returns is called with ids, `[1, L]`
            int64, and scores, `[1, V]` float32, for every token, and returns scores
            of the same shape. It must be a function of these alone: rows are
            truncated, forked and asked again.
        warper: whether it only reshapes the distribution, and is applied only when
            sampling.
        repeatable: whether a pipeline may have it more than once.
    """

    name: str
    arguments: type[Arguments]
    build: Callable[[Any, Row], Callable[[torch.LongTensor, torch.Tensor], torch.Tensor]]
    warper: bool = False
    repeatable: bool = False

    def describe(self) -> ProcessorDescription:
        """Describes it to callers.

        Raises:
            TypeError: an argument has a type without a JSON schema.
        """
        return describe(self.name, self.arguments, warper=self.warper, repeatable=self.repeatable)

    def make(self, arguments: Any, row: Row) -> LogitsProcessor:
        """Builds it for one sequence."""
        return _Checked(self.build(arguments, row))


class _Checked(LogitsProcessor):
    """Holds a processor to its contract, so that what breaks it ends one row."""

    def __init__(self, inner: Callable[[torch.LongTensor, torch.Tensor], torch.Tensor]) -> None:
        self._inner = inner

    def __call__(self, input_ids: torch.LongTensor, scores: Tensor) -> Tensor:
        """Maps `[1, L]` int64 and `[1, V]` float32 to `[1, V]` float32."""
        shape = scores.shape
        processed = self._inner(input_ids, scores)
        if not isinstance(processed, Tensor) or processed.shape != shape:
            raise TypeError(f"it did not return scores of shape {list(shape)}")
        return processed.to(torch.float32)


def load(modules: Sequence[str]) -> tuple[CustomProcessor, ...]:
    """Imports modules and collects their processors.

    Args:
        modules: names, as `import` takes them.

    Raises:
        CustomProcessorError: a module cannot be imported, or has a processor that cannot
            be offered.
    """
    found: dict[str, CustomProcessor] = {}
    for module in modules:
        for processor in _of_module(module):
            problem = _problem(processor, found)
            if problem:
                raise CustomProcessorError(f"{module}: {problem}")
            found[processor.name] = processor
    return tuple(found.values())


def _of_module(name: str) -> Sequence[Any]:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # it is not ours: anything can happen
        raise CustomProcessorError(f"{name} cannot be imported: {error!r}") from error
    processors = getattr(module, ATTRIBUTE, None)
    if not isinstance(processors, list | tuple) or not processors:
        raise CustomProcessorError(f"{name} has no list {ATTRIBUTE} of CustomProcessor")
    return processors


def _problem(processor: Any, found: dict[str, CustomProcessor]) -> str | None:
    """Says why a processor cannot be offered, or None."""
    if not isinstance(processor, CustomProcessor):
        return f"{ATTRIBUTE} has {processor!r}, which is not a CustomProcessor"
    name, arguments = processor.name, processor.arguments
    if not _NAME.fullmatch(name):
        return f"{name!r} is not a valid name, such as 'acme.banned_words': lower case, with a dot"
    if name in found:
        return f"{name} is defined twice"
    if not (isinstance(arguments, type) and issubclass(arguments, Arguments)):
        return f"the arguments of {name} are not a subclass of Arguments"
    try:
        described = processor.describe()
    except TypeError as error:
        return f"the arguments of {name} have no JSON schema: {error}"
    if not described.description:
        return f"the arguments of {name} have no docstring, which is what callers read"
    return None
