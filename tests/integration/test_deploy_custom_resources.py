"""Objects of others' kinds, against schemas of the fields that they use."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.manifests import RENDERED, Manifest, of_kind, render

SCHEMAS = yaml.safe_load(Path(__file__).with_name("custom_resources.yml").read_text())
SPECIFICATIONS = SCHEMAS["specifications"]
# Of Kubernetes itself: test_deploy_kustomize.py.
GROUPS = ("v1", "apps/", "autoscaling/", "batch/", "networking.k8s.io/", "policy/")


def custom(name: str) -> Iterator[Manifest]:
    for manifest in render(name):
        if not manifest["apiVersion"].startswith(GROUPS):
            yield manifest


def kind(manifest: Manifest) -> str:
    return f"{manifest['apiVersion']}/{manifest['kind']}"


def schema(name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {},
            "kind": {},
            "metadata": SCHEMAS["definitions"]["metadata"],
            "spec": SPECIFICATIONS[name],
        },
    }


@pytest.mark.parametrize("name", RENDERED)
def test_every_object_is_valid(name):
    for manifest in custom(name):
        jsonschema.validate(manifest, schema(kind(manifest)))


def test_every_schema_is_of_an_object():
    rendered = {kind(manifest) for name in RENDERED for manifest in custom(name)}
    assert rendered == set(SPECIFICATIONS)


def test_a_misspelt_field_would_be_found():
    (manifest,) = of_kind("keda", "ScaledObject")
    broken = copy.deepcopy(manifest)
    broken["spec"]["triggers"][0]["metrictype"] = "Value"
    with pytest.raises(jsonschema.ValidationError, match="metrictype"):
        jsonschema.validate(broken, schema(kind(broken)))
