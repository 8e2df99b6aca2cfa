"""The chart gives the objects that kustomize gives."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.kubernetes import chart
from deploy.kubernetes.manifests import COMPONENTS, Manifest, Objects, build, without_hashes
from tests import helm
from tests.manifests import OVERLAYS, render

ROOT = Path(__file__).parents[2]

# Of each overlay: its components, and what it changes beside them.
VALUES = {
    "cpu": {
        "model": {"replicas": 1},
        "modelsVolume": {"accessMode": "ReadWriteOnce"},
    },
    "gpu": {},
    "replicated": {"model": {"replicas": 2}},
    "production": {},
}


@pytest.fixture(scope="session")
def program() -> Path:
    return helm.program()


def template(program: Path, folder: Path, values: dict) -> subprocess.CompletedProcess[str]:
    file = folder / "values.yaml"
    file.write_text(json.dumps(values))
    command = [program, "template", "lockstep", chart.FOLDER, "--namespace=lockstep"]
    return subprocess.run(
        [*command, f"--values={file}", "--kube-version=1.34"],
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(program: Path, folder: Path, values: dict) -> Objects:
    result = template(program, folder, values)
    assert result.returncode == 0, result.stderr
    return comparable(yaml.safe_load_all(result.stdout))


def comparable(manifests) -> Objects:
    """Leaves out what names and pods have to say that their settings changed."""
    objects = without_hashes([each for each in manifests if each])
    found: Objects = {}
    for (kind, name), manifest in objects.items():
        if kind == "Namespace":  # `helm install --create-namespace`
            continue
        if kind == "Job":
            name = re.sub(r"^(lockstep-checkpoint)-[0-9a-f]{10}$", r"\1", name)
            manifest["metadata"]["name"] = name
        if kind in ("Deployment", "StatefulSet"):
            metadata = manifest["spec"]["template"]["metadata"]
            checksum = metadata.pop("annotations", {"checksum/settings": "0" * 64})
            assert re.fullmatch(r"[0-9a-f]{64}", checksum["checksum/settings"])
        found[kind, name] = manifest
    return found


def ordered(manifest: Manifest) -> Manifest:
    """Sorts the lists whose order has no meaning: items with names."""
    return json.loads(json.dumps(manifest), object_hook=_sorted)


def _sorted(mapping: dict) -> dict:
    for key, value in mapping.items():
        if isinstance(value, list) and all(isinstance(each, dict) for each in value):
            mapping[key] = sorted(value, key=lambda each: json.dumps(each, sort_keys=True))
    return mapping


def assert_equal(found: Objects, expected: Objects) -> None:
    assert found.keys() == expected.keys()
    for key, manifest in found.items():
        assert ordered(manifest) == ordered(expected[key]), key


def switches(*components: str) -> dict:
    chosen = {chart.value_name(each): each in components for each in COMPONENTS}
    return {"components": chosen}


def test_the_templates_are_what_kustomize_gives_now():
    written = {
        str(path.relative_to(chart.FOLDER)): path.read_text()
        for path in (chart.FOLDER / "templates").iterdir()
    }
    assert written == chart.render(), "Run `make docs`."


@pytest.mark.parametrize("component", [None, *COMPONENTS])
def test_a_component_gives_equal_objects(program, tmp_path, component):
    components = [component] if component else []
    found = rendered(program, tmp_path, switches(*components))
    assert_equal(found, comparable(build(*components)))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_gives_equal_objects(program, tmp_path, overlay):
    """Components together, whose changes the templates make of each one alone."""
    text = (ROOT / "deploy/kustomize/overlays" / overlay / "kustomization.yaml").read_text()
    components = [Path(each).name for each in yaml.safe_load(text)["components"]]
    found = rendered(program, tmp_path, switches(*components) | VALUES[overlay])
    assert_equal(found, comparable(render(overlay)))


def test_values_reach_their_fields(program, tmp_path):
    values = switches("fetch-model") | {
        "tokenizer": {
            "image": "registry/tokenizer:2",
            "resources": {"limits": {"memory": "2Gi"}},
            "settings": {"LOCKSTEP_TOKENIZER_MAX_ITEMS": "128"},
        },
        "model": {
            "name": "org/other",
            "image": "registry/model:2",
            "replicas": 3,
            "resources": {"requests": {"cpu": 8}},
            "settings": {"LOCKSTEP_MODEL_DRAIN_TIMEOUT_S": "30"},
        },
        "modelsVolume": {"size": "100Gi", "storageClass": "fast"},
        "imagePullSecrets": [{"name": "registry"}],
    }
    found = rendered(program, tmp_path, values)
    model = found["StatefulSet", "lockstep-model"]["spec"]
    assert model["replicas"] == 3
    (container,) = model["template"]["spec"]["containers"]
    (wait,) = model["template"]["spec"]["initContainers"]
    (fetch,) = found["Job", "lockstep-checkpoint"]["spec"]["template"]["spec"]["containers"]
    assert {each["image"] for each in (container, wait, fetch)} == {"registry/model:2"}
    assert container["resources"]["requests"] == {"cpu": 8, "memory": "4Gi"}
    assert found["ConfigMap", "lockstep-checkpoint"]["data"] == {"model": "org/other"}
    settings = found["ConfigMap", "lockstep-model"]["data"]
    assert settings["LOCKSTEP_MODEL_DRAIN_TIMEOUT_S"] == "30"
    settings = found["ConfigMap", "lockstep-tokenizer"]["data"]
    assert settings["LOCKSTEP_TOKENIZER_MAX_ITEMS"] == "128"
    claim = found["PersistentVolumeClaim", "lockstep-models"]["spec"]
    assert claim["storageClassName"] == "fast"
    assert claim["resources"]["requests"]["storage"] == "100Gi"
    account = found["ServiceAccount", "lockstep"]
    assert account["imagePullSecrets"] == [{"name": "registry"}]


def test_another_namespace_is_in_every_name(program, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(switches("tls", "keda")))
    command = [program, "template", "lockstep", chart.FOLDER, "--namespace=elsewhere"]
    command += [f"--values={file}", "--kube-version=1.34"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "lockstep-model.elsewhere.svc" in text
    assert 'namespace="elsewhere"' in text
    assert "namespace: lockstep" not in text
    assert ".lockstep.svc" not in text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": {"replica": 3}}, "replica"),
        (
            {"model": {"settings": {"LOCKSTEP_MODEL_MAX_SESSIONS": 3}}},
            "LOCKSTEP_MODEL_MAX_SESSIONS",
        ),
        ({"components": {"tsl": True}}, "tsl"),
        ({"components": {"hpa": True, "keda": True}}, "components"),
        ({"components": {"fetchModel": True, "imageVolume": True}}, "components"),
    ],
)
def test_a_value_that_means_nothing_is_refused(program, tmp_path, values, says):
    result = template(program, tmp_path, values)
    assert result.returncode != 0
    assert says in result.stderr


def test_another_model_is_another_job(program, tmp_path):
    names = set()
    for model in ("org/one", "org/two"):
        text = template(program, tmp_path, {"model": {"name": model}}).stdout
        objects = [each for each in yaml.safe_load_all(text) if each]
        names |= {each["metadata"]["name"] for each in objects if each["kind"] == "Job"}
    assert len(names) == 2


def test_the_chart_is_in_order(program):
    result = subprocess.run(
        [program, "lint", "--strict", chart.FOLDER], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
