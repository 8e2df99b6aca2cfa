import os
import shutil
from pathlib import Path

from checkpoints import resolve


def fingerprint(folder: Path) -> str:
    return resolve(str(folder), need="model").fingerprint


def test_copies_have_the_same_fingerprint(model_folder: Path, tmp_path: Path):
    copy = shutil.copytree(model_folder, tmp_path / "elsewhere")
    assert fingerprint(copy) == fingerprint(model_folder)


def test_one_changed_byte_changes_the_fingerprint(model_folder: Path):
    before = fingerprint(model_folder)
    path = model_folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert fingerprint(model_folder) != before


def test_a_renamed_file_changes_the_fingerprint(model_folder: Path):
    before = fingerprint(model_folder)
    (model_folder / "tokenizer.json").rename(model_folder / "tokenizer_2.json")
    assert fingerprint(model_folder) != before


def test_files_that_are_never_read_do_not_count(model_folder: Path):
    before = fingerprint(model_folder)
    (model_folder / "README.md").write_text("Hello.")
    assert fingerprint(model_folder) == before


def test_weights_are_hashed_once(model_folder: Path):
    before = fingerprint(model_folder)
    path = model_folder / "model.safetensors"
    stat = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(model_folder) == before, "the file was read again"


def test_a_cache_that_cannot_be_written_costs_only_time(model_folder: Path, monkeypatch):
    before = fingerprint(model_folder)
    monkeypatch.setenv("LOCKSTEP_CACHE", str(model_folder / "config.json" / "no-folder"))
    assert fingerprint(model_folder) == before
