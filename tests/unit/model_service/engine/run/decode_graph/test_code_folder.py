from pathlib import Path

import pytest

from model_service.engine.run.decode_graph.code_folder import CodeFolder


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A folder that cannot be made or written, also not by the superuser."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


def test_a_folder_that_was_set_is_made_and_used(tmp_path):
    assert CodeFolder(str(tmp_path / "a" / "b")).writable() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_without_one_it_is_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path))
    assert CodeFolder("").writable() == tmp_path


def test_what_is_kept_is_found(tmp_path):
    (tmp_path / "graphs" / "a").mkdir(parents=True)
    folder = CodeFolder(str(tmp_path))
    assert folder.find("graphs/a") == tmp_path / "graphs" / "a"
    assert folder.find("graphs/b") is None


def test_a_folder_that_cannot_be_written_gives_way_to_a_temporary_one(read_only, caplog):
    folder = CodeFolder(str(read_only))
    temporary = folder.writable()
    assert temporary == folder.writable()
    (temporary / "file").write_text("")
    (line,) = caplog.messages
    assert str(read_only) in line
    assert "--compile-cache" in line
    folder.close()
    assert not temporary.exists()


def test_looking_for_code_needs_no_folder_and_says_nothing(read_only, caplog):
    assert CodeFolder(str(read_only)).find("graphs/a") is None
    assert caplog.messages == []
