"""The processors and warpers on offer, as `ListLogitsProcessors` describes them.

First ours, in the order in which they are applied, under the names of the
fields of `GenerationConfig` that switch them on; then those that the operator
added, which are applied where a request's `processors` names them.
"""

from collections.abc import Mapping
from functools import cache

from model_service.protocol import EngineInfo
from model_service.protocol.processor_arguments import BY_NAME
from model_service.protocol.processor_description import ProcessorDescription, describe
from model_service.protocol.processor_order import WARPERS

REPEATABLE = frozenset({"temperature", "remove_invalid_values", "renormalize_logits"})
"""Those that a pipeline may have more than once. Any other is given all that it is to do at
once."""

Catalog = Mapping[str, ProcessorDescription]

BUILT_IN: Catalog = {
    name: describe(name, arguments, warper=name in WARPERS, repeatable=name in REPEATABLE)
    for name, arguments in BY_NAME.items()
}


def catalog(info: EngineInfo) -> Catalog:
    """Returns what an engine offers, by name and in order."""
    return _with(info.custom_processors)


@cache
def _with(custom: tuple[ProcessorDescription, ...]) -> Catalog:
    return {**BUILT_IN, **{description.name: description for description in custom}}
