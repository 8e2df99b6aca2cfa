"""The table of Hugging Face's fields in docs/generation.md, against both sides."""

from lockstep.v1.generation_pb2 import GenerationConfig as Message

from docs.hugging_face import NOTES, fields, ours
from lockstep_client._requests.generation_config import KEYWORDS
from model_service.engine.load import default_fields, loader
from model_service.protocol.parameters import PARAMETERS
from tests.services import ROOT


def test_every_field_of_hugging_faces_is_ours_or_has_a_note_that_says_why_not():
    assert all(ours(name) or name in NOTES for name in fields())
    assert set(fields()) >= NOTES.keys()


def test_the_rows_of_the_table_name_fields_of_hugging_faces():
    named = {row.hugging_face for row in PARAMETERS.values() if row.hugging_face}
    assert named <= set(fields())


def test_every_field_of_ours_is_in_the_table_or_named_as_ours_alone():
    page = (ROOT / "docs" / "generation.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("Only here:")]
    alone = {name.strip("` .") for name in line.removeprefix("Only here:").split(",")}
    assert alone == {row.name for row in PARAMETERS.values() if row.hugging_face is None}


def test_what_a_models_file_sets_is_honored_or_refused():
    assert loader.NOT_SAMPLED.keys() <= set(fields())
    assert not loader.NOT_SAMPLED.keys() & default_fields.FIELDS.keys()


def test_every_field_of_ours_has_a_keyword_of_the_client():
    spelled = {"eos_token_ids": "eos_token_id", "forced_eos_token_ids": "forced_eos_token_id"}
    names = Message.DESCRIPTOR.fields_by_name
    assert {spelled.get(name, name) for name in names} <= KEYWORDS
