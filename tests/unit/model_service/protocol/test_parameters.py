"""The table of generation fields: what it says of each, pinned."""

import json
from pathlib import Path

import msgspec
from lockstep.v1.generation_pb2 import GenerationConfig as Message

from model_service.engine.load import default_fields
from model_service.engine.sampling import coverage
from model_service.front.checks import configuration_fields, contradictions
from model_service.front.checks.processor_catalog import BUILT_IN
from model_service.protocol.generation import GenerationConfig
from model_service.protocol.processor_order import CLOSING, NEED_ENDS, PROCESSORS, WARPERS

PINNED = Path(__file__).with_name("parameters.json")

STAGES = {"processor": PROCESSORS, "warper": WARPERS, "closing": CLOSING}
ORDER = [name for stage in STAGES.values() for name in stage]
DEFAULTS = {
    field.name: None if field.default is msgspec.NODEFAULT else field.default
    for field in msgspec.structs.fields(GenerationConfig)
}


def _off(name: str) -> object:
    """The value that has no effect, of fields that are ever turned off."""
    needs = {need.field: need.off for need in contradictions.NEEDS}
    return (needs | configuration_fields.IMPLYING_OFF | configuration_fields.SAMPLING_OFF).get(
        name, DEFAULTS.get(name)
    )


def _fast_path(name: str) -> str:
    if name in coverage.COVERED:
        return "always"
    if name in coverage.COVERED_WHEN_SAMPLING:
        return "when sampling"
    return "when greedy" if name in coverage.COVERED_WHEN_GREEDY else "never"


def described(name: str) -> dict[str, object]:
    row: dict[str, object] = {}
    if name in configuration_fields.RANGES:
        row["range"] = str(configuration_fields.RANGES[name])
    row["default"] = repr(DEFAULTS.get(name))
    row["off"] = repr(_off(name))
    row["needs"] = [
        need.condition + ("" if need.refused else " (never refused)")
        for need in contradictions.NEEDS
        if need.field == name
    ]
    theirs = [theirs for theirs, (ours, _) in default_fields.FIELDS.items() if ours == name]
    row["in_a_models_file"] = theirs[0] if theirs else None
    row["fast_path"] = _fast_path(name)
    if name in ORDER:
        row["stage"] = next(stage for stage, names in STAGES.items() if name in names)
        row["place"] = ORDER.index(name)
        row["needs_ends"] = name in NEED_ENDS
        row["repeatable"] = BUILT_IN[name].repeatable
        row["warper"] = BUILT_IN[name].warper
        row["description"] = BUILT_IN[name].description
        row["arguments"] = json.loads(BUILT_IN[name].arguments_schema_json)
    return row


def test_the_table_says_of_every_field_what_is_pinned():
    said = {name: described(name) for name in sorted(Message.DESCRIPTOR.fields_by_name)}
    assert said == json.loads(PINNED.read_text())


def test_processors_are_offered_in_their_order():
    assert list(BUILT_IN) == ORDER
