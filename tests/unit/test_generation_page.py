"""The table of Hugging Face's fields in docs/generation.md, against both sides."""

from lockstep.v1.generation_pb2 import GenerationConfig as Message
from transformers import GenerationConfig as HFGenerationConfig

from docs.hugging_face import FIELDS
from lockstep_client._requests.generation_config import KEYWORDS
from model_service.engine.load import default_fields, loader
from model_service.front.checks.configuration_fields import SUPPORTED_FIELDS
from tests.services import ROOT


def test_every_field_of_hugging_faces_has_a_row():
    theirs = {name for name in vars(HFGenerationConfig()) if not name.startswith("_")}
    assert theirs == FIELDS.keys()


def test_the_rows_name_fields_of_ours():
    ours = {name for field in FIELDS.values() for name in field.ours}
    assert ours <= set(Message.DESCRIPTOR.fields_by_name)


def test_every_field_of_ours_is_in_the_table_or_named_as_ours_alone():
    page = (ROOT / "docs" / "generation.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("Only here:")]
    alone = {name.strip("` .") for name in line.removeprefix("Only here:").split(",")}
    ours = {name for field in FIELDS.values() for name in field.ours}
    assert ours | alone == set(Message.DESCRIPTOR.fields_by_name)
    assert not ours & alone


def test_what_a_models_file_can_set_is_honored_only_where_requests_can_set_it():
    for theirs, (ours, _) in default_fields.FIELDS.items():
        assert ours in FIELDS[theirs].ours
        assert ours in SUPPORTED_FIELDS
    assert loader.NOT_SAMPLED.keys() <= FIELDS.keys()
    assert not loader.NOT_SAMPLED.keys() & default_fields.FIELDS.keys()


def test_every_field_of_ours_has_a_keyword_of_the_client():
    spelled = {"eos_token_ids": "eos_token_id", "forced_eos_token_ids": "forced_eos_token_id"}
    names = Message.DESCRIPTOR.fields_by_name
    assert {spelled.get(name, name) for name in names} <= KEYWORDS
