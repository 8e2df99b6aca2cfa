"""What the roles that revisions give mean for requests."""

import msgspec

from model_service.front.vocabulary.table import VocabularyTable, with_roles
from model_service.protocol import EngineSettings
from tests.fakes.counting_engine import CountingEngine
from vocabulary import Reference, SpecialToken

COUNTING = CountingEngine(EngineSettings("", "", ""), None).info()
OWN = msgspec.structs.replace(
    COUNTING,
    eos_token_ids=[3],
    pad_token_id=None,
    bos_token_id=1,
    default_config=msgspec.structs.replace(COUNTING.default_config, eos_token_ids=(3,)),
)


def test_without_roles_a_model_is_what_it_was():
    assert with_roles(OWN, {}) is OWN
    assert with_roles(OWN, {"unk": 9, "eos": 3}) == OWN


def test_an_end_is_added_to_those_of_the_model():
    info = with_roles(OWN, {"eos": 9})
    assert info.eos_token_ids == [3, 9]
    assert info.default_config.eos_token_ids == (3, 9)


def test_pad_and_beginning_replace_those_of_the_model():
    info = with_roles(OWN, {"pad": 7, "bos": 8})
    assert (info.pad_token_id, info.bos_token_id, info.eos_token_ids) == (7, 8, [3])


def test_a_revision_has_its_roles_and_those_of_the_revisions_before():
    table = VocabularyTable(followed=True, wait_s=0.0)
    given = [(), (SpecialToken("eos", 5), SpecialToken("pad", 6)), (), (SpecialToken("eos", 7),)]
    for revision, special_tokens in enumerate(given):
        table.append(Reference("tiny", revision, "", 32), special_tokens)
    roles = [table.roles(revision) for revision in range(4)]
    assert roles == [{}, {"eos": 5, "pad": 6}, {"eos": 5, "pad": 6}, {"eos": 7, "pad": 6}]
