"""The objects that kustomize makes of the base with components."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

KUSTOMIZE = Path(__file__).parents[1] / "kustomize"
COMPONENTS = sorted(path.name for path in (KUSTOMIZE / "components").iterdir())
NAMESPACE = "lockstep"

# As kustomize writes it, so that it spells no word.
_HASH = re.compile("[2456789bcdfghkmt]{10}")

Manifest = dict[str, Any]
Key = tuple[str, str]
"""Kind and name of an object."""
Objects = dict[Key, Manifest]


def build(*components: str) -> list[Manifest]:
    """Returns the base with components, in the namespace `lockstep`."""
    with tempfile.TemporaryDirectory() as folder:
        there = os.path.relpath(KUSTOMIZE, Path(folder).resolve())
        kustomization = {
            "namespace": NAMESPACE,
            "resources": [f"{there}/base"],
            "components": [f"{there}/components/{name}" for name in components],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return kustomize(Path(folder))


def kustomize(folder: Path) -> list[Manifest]:
    """Returns what `kubectl kustomize` makes of a folder.

    Raises:
        ValueError: kustomize refuses the folder. The message says why.
    """
    command = ["kubectl", "kustomize", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ValueError(result.stderr)
    return list(yaml.safe_load_all(result.stdout))


def without_hashes(manifests: Iterable[Manifest]) -> Objects:
    """Returns objects by kind and name, the names of ConfigMaps without the hash of content."""
    manifests = list(manifests)
    text = json.dumps(manifests)
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        stem, _, end = name.rpartition("-")
        if manifest["kind"] == "ConfigMap" and _HASH.fullmatch(end):
            text = text.replace(f'"{name}"', f'"{stem}"')
    return {(each["kind"], each["metadata"]["name"]): each for each in json.loads(text)}
