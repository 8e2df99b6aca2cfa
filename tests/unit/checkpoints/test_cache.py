import threading
import time
from pathlib import Path

import pytest

from checkpoints import CheckpointAbsent, CheckpointError, cache


def test_what_does_not_fit_the_disk_is_refused_before_it_is_begun(cache_folder: Path):
    def write(folder: Path) -> None:
        cache.check_room(folder, 2**62)

    with pytest.raises(CheckpointError, match=r"MiB are needed and .* are free.*LOCKSTEP_CACHE"):
        cache.entry("large", write)


def test_an_entry_is_written_once(cache_folder: Path):
    written = []

    def write(folder: Path) -> None:
        written.append(folder)
        (folder / "file").write_text("text")

    assert cache.entry("a/b", write) == cache.entry("a/b", write) == cache_folder / "a" / "b"
    assert len(written) == 1
    assert (cache_folder / "a" / "b" / "file").read_text() == "text"


def test_a_writer_that_fails_leaves_nothing_behind(cache_folder: Path):
    def write(folder: Path) -> None:
        (folder / "half").touch()
        raise CheckpointError("no network")

    with pytest.raises(CheckpointError, match="no network"):
        cache.entry("a/b", write)
    assert [path.name for path in (cache_folder / "a").iterdir()] == [".b.lock"]


def test_an_entry_appears_as_a_whole():
    """A rename keeps the inode; a copy could be seen half done by who does not take the lock."""
    written = []
    target = cache.entry("a/b", lambda folder: written.append(folder.stat().st_ino))
    assert written == [target.stat().st_ino]


def test_what_a_killed_process_left_is_removed(cache_folder: Path):
    left_over = cache_folder / "a" / ".b.part-killed"
    left_over.mkdir(parents=True)
    cache.entry("a/b", lambda folder: (folder / "file").touch())
    assert not left_over.exists()


def test_starts_at_the_same_time_write_once_and_see_all_of_it():
    written, seen = [], []

    def write(folder: Path) -> None:
        written.append(folder)
        (folder / "first").touch()
        time.sleep(0.3)  # long enough for the others to arrive
        (folder / "second").touch()

    def start() -> None:
        folder = cache.entry("a/b", write)
        seen.append(sorted(path.name for path in folder.iterdir()))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
    assert seen == [["first", "second"]] * 4


def test_another_user_can_read_an_entry():
    folder = cache.entry("a/b", lambda folder: (folder / "file").touch(mode=0o600))
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "file").stat().st_mode & 0o777 == 0o644


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CheckpointError, match="set LOCKSTEP_CACHE"):
        cache.entry("a/b", lambda folder: None)


def test_what_is_not_in_a_cache_that_may_only_be_read_is_said_to_be_absent(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", "/sys/lockstep")  # nobody may make a folder there
    with pytest.raises(CheckpointAbsent, match="b is not in the cache folder /sys/lockstep"):
        cache.entry("a/b", lambda folder: None)


def test_the_cache_is_the_users_unless_named(monkeypatch):
    monkeypatch.delenv("LOCKSTEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.root() == Path("/elsewhere/lockstep")
