"""`lockstep vocab` and `ls.vocabulary` against a tokenizer service of their own."""

import json
import time
import uuid

import numpy as np
import pytest
import trustme
from typer.testing import CliRunner

from lockstep_client import Lockstep, Tls
from lockstep_client._cli import app
from lockstep_client.exceptions import Loading
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.services import Services, running_process


def wait_until_ready(address: str, tls: Tls | None = None) -> None:
    """Waits for a tokenizer service alone."""
    deadline = time.monotonic() + 30.0
    with Lockstep(tokenizer=address, tls=tls) as client:
        while True:
            try:
                client.tokenizer.info()
                return
            except Loading:
                assert time.monotonic() < deadline


@pytest.fixture
def tokenizer(services: Services, tmp_path):
    """A tokenizer service whose vocabulary the test may grow, with its store."""
    flags = (f"--model={services.checkpoint}", f"--store=sqlite:///{tmp_path / 'vocabulary.db'}")
    with (
        running_process("tokenizer_service", *flags, folder=tmp_path) as grown,
        Lockstep(tokenizer=grown.address, model=services.model.address) as client,
    ):
        client.wait_until_ready()
        yield client, grown.address


@pytest.fixture
def client(tokenizer):
    return tokenizer[0]


@pytest.fixture
def vocab(tokenizer):
    """Runs `lockstep vocab`; returns its result."""
    runner = CliRunner(env={"LOCKSTEP_TOKENIZER": tokenizer[1], "COLUMNS": "120", "NO_COLOR": "1"})

    def run(*arguments: str):
        return runner.invoke(app, ["vocab", *arguments])

    return run


@pytest.fixture
def answer(vocab):
    """Runs `lockstep vocab ... --json`; returns the answer."""

    def run(*arguments: str) -> dict:
        result = vocab(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return run


def test_a_vocabulary_grows_and_its_log_is_verified(vocab, answer):
    dry = answer("add", "<tool>", "--special", "--dry-run")
    assert dry["vocabulary"]["revision"] == 1
    added = answer("add", "<tool>", "--special")
    assert [token["id"] for token in added["tokens"]] == [VOCABULARY_SIZE]
    base, first = answer("log")["revisions"]
    assert base["vocabulary"]["revision"] == 0
    assert first["tokens"] == {str(VOCABULARY_SIZE): "<tool>"}
    assert first["parent_fingerprint"] == base["vocabulary"]["fingerprint"]
    assert answer("verify")["valid"] is True
    assert "2 revisions" in vocab("verify").stdout
    assert "<tool>" in vocab("log").stdout


def test_a_token_is_added_with_its_flags_and_role(answer, client: Lockstep):
    added = answer("add", "<pad>", "--special", "--role", "pad", "--lstrip", "--single-word")
    assert client.tokenizer.info().pad_token_id == added["tokens"][0]["id"]
    ids = client.tokenizer.encode("a <pad>", parse_special_tokens=True).token_ids[0]
    assert ids == [*client.tokenizer.encode("a").token_ids[0], VOCABULARY_SIZE]  # lstrip


def test_trained_vectors_come_from_files_with_a_row_for_each_token(vocab, answer, tmp_path):
    rows = tmp_path / "rows.npy"
    np.save(rows, np.ones((2, 64), np.float64))
    answer("add", "<a>", "<b>", "--special", "--input-values", str(rows))
    for wrong in (np.ones((3, 64)), np.ones((2, 64), np.int64), np.ones((2, 2, 2))):
        np.save(rows, wrong)
        result = vocab("add", "<c>", "<d>", "--special", "--input-values", str(rows))
        assert result.exit_code == 2
        assert "shape" in result.stderr
    rows.write_text("0.5 0.5")
    assert vocab("add", "<c>", "--special", "--input-values", str(rows)).exit_code == 2


def test_rows_are_copied_of_a_token_named_by_spelling_or_id(answer, vocab):
    answer("add", "<a>", "--special", "--copy", "5")
    answer("add", "<b>", "--special", "--copy", "<a>")
    assert vocab("add", "<c>", "--special", "--copy", "<nobody>").exit_code == 2
    assert vocab("add", "<c>", "--copy", "5", "--initialize", "zero").exit_code == 2


def test_roles_are_given_by_spelling_or_id(answer, vocab, client: Lockstep):
    answer("add", "<end>", "--special")
    answer("set-special", "pad=<end>")
    assert client.tokenizer.info().pad_token_id == VOCABULARY_SIZE
    assert vocab("set-special", f"eos={VOCABULARY_SIZE}").stdout.startswith("eos is ")
    for wrong in ("pad", "pad=", "padding=3", "pad=<nobody>"):
        assert vocab("set-special", wrong).exit_code == 2


def test_a_change_can_name_the_revision_it_knows_and_its_key(vocab, answer):
    key = str(uuid.uuid4())
    first = answer("add", "<a>", "--special", "--idempotency-key", key)
    assert answer("add", "<a>", "--special", "--idempotency-key", key) == first
    late = vocab("add", "<b>", "--special", "--expected-revision", "0")
    assert late.exit_code == 1
    assert "RevisionConflict" in late.stderr
    answer("add", "<b>", "--special", "--expected-revision", "1")


def test_a_dry_run_shows_what_becomes_of_tokens_and_texts(vocab, answer):
    table = vocab("add", "the", "--dry-run", "--allow-text-changes", "--text", "then").stdout
    assert "changes text" in table
    assert tuple(table.splitlines()[2].split()[:3]) == ("the", "would", "change")
    assert table.splitlines()[4].split() == ["t", "h", "en", "the", "n", "yes"]
    assert "would be at revision 1 with 321 ids" in table
    effects = answer("add", "<t>", "--special", "--dry-run", "--text", "a<t>")["text_effects"]
    assert effects[0]["after"]["ids"][-1] == VOCABULARY_SIZE
    assert effects[0]["changes_text"] is False
    assert vocab("add", "<t>", "--special", "--text", "a<t>").exit_code == 2


def test_an_exported_log_is_restored_and_continued(vocab, answer, tmp_path, services: Services):
    archive = tmp_path / "log.jsonl"
    answer("add", "<a>", "<b>", "--special")
    answer("add", "<c>", "--special", "--role", "pad", "--role", "sep")
    exported = answer("export", str(archive))
    assert exported["bytes"] == archive.stat().st_size
    folder = tmp_path / "restored"
    folder.mkdir()
    flags = (f"--model={services.checkpoint}", f"--store=sqlite:///{folder / 'vocabulary.db'}")
    with running_process("tokenizer_service", *flags, folder=folder) as restored:
        wait_until_ready(restored.address)
        there = ("--tokenizer", restored.address)
        assert vocab("export", str(archive)).stderr == ""  # a bar is for terminals
        imported = answer("import", str(archive), *there)
        assert (imported["num_imported_revisions"], imported["num_revisions"]) == (2, 2)
        assert answer("log", *there) == answer("log")
        assert answer("import", str(archive), *there)["num_imported_revisions"] == 0
        answer("add", "<elsewhere>", "--special", *there)
        answer("add", "<here>", "--special")
        answer("export", str(archive))
        forked = vocab("import", str(archive), *there)
        assert forked.exit_code == 1
        assert "VocabularyMismatch" in forked.stderr
        archive.write_bytes(archive.read_bytes()[:-1])
        assert "the archive is cut off" in vocab("import", str(archive)).stderr


def test_an_export_that_fails_leaves_the_file_of_before(vocab, tmp_path):
    archive = tmp_path / "log.jsonl"
    archive.write_text("before")
    assert vocab("export", str(archive), "--tokenizer", "localhost:1").exit_code == 1
    assert archive.read_text() == "before"
    assert sorted(path.name for path in tmp_path.glob("log*")) == ["log.jsonl"]
    assert vocab("export", str(tmp_path / "none" / "log.jsonl")).exit_code == 2


def test_a_service_that_asks_for_a_certificate_is_shown_that_of_the_environment(
    services: Services, tmp_path
):
    authority = trustme.CA()
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "tls.crt", "tls.key"))
    issued = authority.issue_cert("localhost")
    ca.write_bytes(authority.cert_pem.bytes())
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    principals = tmp_path / "principals.toml"
    principals.write_text(
        '[operator]\nroles = ["info", "vocabulary-admin"]\ncertificates = ["localhost"]\n'
    )
    flags = (
        f"--model={services.checkpoint}",
        f"--store=sqlite:///{tmp_path / 'vocabulary.db'}",
        f"--tls-certificate={certificate}",
        f"--tls-key={key}",
        f"--tls-client-ca={ca}",
        f"--principals={principals}",
    )
    own = {"LOCKSTEP_TLS_CERTIFICATE": str(certificate), "LOCKSTEP_TLS_KEY": str(key)}
    with running_process("tokenizer_service", *flags, folder=tmp_path) as secured:
        shown = Tls(ca=ca.read_bytes(), certificate=certificate.read_bytes(), key=key.read_bytes())
        wait_until_ready(secured.address, shown)
        arguments = ["vocab", "verify", "--tokenizer", secured.address, "--tls-ca", str(ca)]
        stranger = CliRunner().invoke(app, arguments)
        assert (stranger.exit_code, "ConnectionFailed" in stranger.stderr) == (1, True)
        assert CliRunner(env=own).invoke(app, arguments).exit_code == 0
        half = {"LOCKSTEP_TLS_KEY": str(key)}
        assert CliRunner(env=half).invoke(app, arguments).exit_code == 2
        lost = {**own, "LOCKSTEP_TLS_KEY": str(tmp_path / "none")}
        assert CliRunner(env=lost).invoke(app, arguments).exit_code == 2


def test_a_role_is_given_by_the_spelling_of_its_token(client):
    added = client.vocabulary.add_tokens(["<role>"], special=True)
    client.vocabulary.set_special_tokens({"pad": "<role>"})
    assert client.tokenizer.info().special_tokens["pad"] == added.ids[0]
    with pytest.raises(ValueError, match="there is no token '<none>'"):
        client.vocabulary.set_special_tokens({"pad": "<none>"})
