"""The table of generation fields: what it says of each, pinned, and that it is the schema's."""

import json
import re
from pathlib import Path

import pytest
from lockstep.v1.generation_pb2 import GenerationConfig as Message

from model_service.engine.load import default_fields
from model_service.front.checks.processor_catalog import BUILT_IN
from model_service.protocol.number import Number
from model_service.protocol.parameters import PARAMETERS, PROCESSORS
from model_service.protocol.processor_order import NEED_ENDS
from tests.services import ROOT

PINNED = Path(__file__).with_name("parameters.json")

ORDER = [row.name for row in PROCESSORS]


def described(name: str) -> dict[str, object]:
    row = PARAMETERS[name]
    theirs = [theirs for theirs, ours in default_fields.FIELDS.items() if ours is row]
    said: dict[str, object] = {"range": str(row.kind)} if isinstance(row.kind, Number) else {}
    said["default"] = repr(row.default)
    said["off"] = repr(row.off)
    said["needs"] = [
        need.condition + ("" if need.refused else " (never refused)") for need in row.needs
    ]
    said["in_a_models_file"] = theirs[0] if theirs else None
    said["fast_path"] = row.fast_path
    if row.stage:
        said["stage"] = row.stage.name.lower()
        said["place"] = ORDER.index(name)
        said["needs_ends"] = name in NEED_ENDS
        said["repeatable"] = BUILT_IN[name].repeatable
        said["warper"] = BUILT_IN[name].warper
        said["description"] = BUILT_IN[name].description
        said["arguments"] = json.loads(BUILT_IN[name].arguments_schema_json)
    return said


def comment(name: str) -> str:
    """What the schema says of a field."""
    schema = (ROOT / "protos/lockstep/v1/generation.proto").read_text()
    message = schema[schema.index("message GenerationConfig {") :]
    found = re.search(rf"((?: +//.*\n)+)[^/]*? {name} = ", message)
    assert found
    return " ".join(line.strip().removeprefix("//").strip() for line in found[1].splitlines())


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_the_schema_says_what_an_unset_field_means(name):
    assert re.search(r"(Unset|Empty|empty list) means", comment(name))
    default = re.search(r"default, ([\w.]+) where it has none", comment(name))
    if default and not default[1].startswith("EARLY"):
        assert json.loads(default[1]) == PARAMETERS[name].default


@pytest.mark.parametrize(
    "name", [row.name for row in PARAMETERS.values() if isinstance(row.kind, Number)]
)
def test_the_schema_says_the_range_of_a_number(name):
    found = re.search(r"Range: ([\[(].*?[\])])", comment(name))
    assert found
    low, high = found[1][1:-1].split(", ")
    kind = PARAMETERS[name].kind
    if low != "longest prompt":
        assert low == f"{kind.low:g}".replace("e-0", "e-")
    if re.fullmatch(r"[\d.e]+|2\^\d+", high):  # and not what a request, a model or a server bounds
        assert f"{high}{found[1][-1]}" in str(kind).replace("e+0", "e")


def test_the_table_has_a_row_for_every_field_of_the_schema():
    assert PARAMETERS.keys() == set(Message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_the_table_says_what_is_pinned(name):
    assert described(name) == json.loads(PINNED.read_text())[name]


def test_processors_are_offered_in_their_order():
    assert list(BUILT_IN) == ORDER


def test_the_schema_names_processors_in_their_order():
    schema = (ROOT / "protos/lockstep/v1/generation.proto").read_text()
    order = schema[
        schema.index("Order of application") : schema.index("message GenerationConfig {")
    ]
    named = [word for word in re.findall(r"\w+", order) if word in ORDER]
    assert named == [name for name in ORDER if name in named]
    forced = {"forced_prefix", "forced_bos_token_id", "forced_eos_token_ids"}  # "forced tokens"
    watermarks = {"green_list_watermark", "synth_id_watermark"}  # "watermark"
    assert set(ORDER) - set(named) == forced | watermarks
