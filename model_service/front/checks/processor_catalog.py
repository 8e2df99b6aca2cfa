"""The processors and warpers on offer, as `ListLogitsProcessors` describes them.

First ours, in the order in which they are applied, under the names of the
fields of `GenerationConfig` that switch them on; then those that the operator
added, which are applied where a request's `processors` names them.
"""

import json
from collections.abc import Mapping
from functools import cache

from model_service.protocol import EngineInfo
from model_service.protocol.parameter import Stage
from model_service.protocol.parameters import PROCESSORS
from model_service.protocol.processor_description import ProcessorDescription, arguments_schema

Catalog = Mapping[str, ProcessorDescription]

BUILT_IN: Catalog = {
    row.name: ProcessorDescription(
        row.name,
        description=row.meaning,
        arguments_schema_json=json.dumps(arguments_schema(row.arguments)),
        warper=row.stage is Stage.WARPER,
        repeatable=row.repeatable,
    )
    for row in PROCESSORS
}


def catalog(info: EngineInfo) -> Catalog:
    """Returns what an engine offers, by name and in order."""
    return _with(info.custom_processors)


@cache
def _with(custom: tuple[ProcessorDescription, ...]) -> Catalog:
    return {**BUILT_IN, **{description.name: description for description in custom}}
