"""A vocabulary that grows."""

from pathlib import Path
from typing import Any

import pytest

from lockstep_client import Lockstep
from tests.integration.node.package import needs_node, probe
from tests.services import Services, running_process

pytestmark = needs_node


@pytest.fixture(scope="module")
def growth(
    built: Path, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What became of the vocabulary of a tokenizer service of its own."""
    folder = tmp_path_factory.mktemp("growth")
    flags = (f"--model={services.checkpoint}", f"--store=sqlite:///{folder / 'vocabulary.db'}")
    with running_process("tokenizer_service", *flags, folder=folder) as grown:
        with Lockstep(tokenizer=grown.address, model=services.model.address) as client:
            client.wait_until_ready()
            width = client.model.info().hidden_size
        environment = {**services.environment, "LOCKSTEP_TOKENIZER": grown.address}
        return probe("growth", built, **environment, WIDTH=str(width))


def test_tokens_are_added_with_vectors_and_in_use_at_once(growth):
    tool, copy = growth["added"]["ids"]
    assert growth["dry"]["ids"] == [tool]
    assert growth["dry"]["revision"] == growth["added"]["vocabulary"]["revision"] == 1
    assert tool not in growth["before"][0]
    assert tool in growth["after"][0]
    assert growth["decoded"] == "<tool>"
    assert (copy, growth["roles"]["revision"]) == (tool + 1, 2)


def test_ids_go_with_the_newest_vocabulary_that_the_client_has_seen(growth):
    """The model here follows another tokenizer service, and knows no revision of this one."""
    assert growth["afterDryRun"] is None
    assert growth["bareIds"]["reason"] in ("VOCABULARY_BEHIND", "VOCABULARY_MISMATCH")
    assert growth["bareIds"]["metadata"]["requestRevision"] == "2"


def test_revisions_are_watched_listed_verified_and_archived(growth):
    base, tokens, roles = growth["revisions"]
    assert base["vocabulary"]["revision"] == 0
    assert growth["seen"] == tokens
    assert [token["content"] for token in tokens["tokens"]] == ["<tool>", "<copy>"]
    assert tokens["specialTokens"] == {"sep": growth["added"]["ids"][0]}
    assert roles["specialTokens"] == {"pad": growth["added"]["ids"][1]}
    assert growth["verified"]["valid"]
    assert growth["imported"]["numRevisions"] == 2
    assert growth["imported"]["numImportedRevisions"] == 0


def test_changes_of_the_vocabulary_fail_by_reason(growth):
    assert growth["exists"]["reason"] == "TOKEN_EXISTS"
    assert growth["conflict"]["reason"] == "REVISION_CONFLICT"
    assert "role is one of 'bos', 'eos', 'pad'" in growth["role"]["message"]
