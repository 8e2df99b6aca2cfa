"""The Helm chart: the objects of kustomize, with a switch for each component."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.kubernetes.manifests import (
    COMPONENTS,
    NAMESPACE,
    Key,
    Objects,
    build,
    without_hashes,
)
from deploy.kubernetes.template import ABSENT, Template
from deploy.kubernetes.template import Path as FieldPath

FOLDER = Path(__file__).parents[1] / "helm" / "lockstep"

WORKLOADS = {"lockstep-tokenizer": "tokenizer", "lockstep-model": "model"}
CLAIMS = {"lockstep-models": "modelsVolume", "lockstep-vocabulary": "vocabularyVolume"}
CHECKPOINT = "lockstep-checkpoint"


def render() -> dict[str, str]:
    """Returns the text of every generated file, by its path in the chart's folder."""
    base = without_hashes(build())
    variants = {value_name(name): without_hashes(build(name)) for name in COMPONENTS}
    texts: dict[str, list[str]] = {}
    for key in sorted({*base, *(key for objects in variants.values() for key in objects)}):
        texts.setdefault(_file(key, base, variants), []).append(_object(key, base, variants))
    return {f"templates/{name}.yaml": "---\n".join(each) for name, each in texts.items()}


def value_name(component: str) -> str:
    """Returns the name of a component's switch: `imageVolume` for `image-volume`."""
    first, *others = component.split("-")
    return first + "".join(each.capitalize() for each in others)


def _file(key: Key, base: Objects, variants: Mapping[str, Objects]) -> str:
    """Returns the file of an object: its component's, its service's or that of the rest."""
    kind, name = key
    if key not in base:
        return next(each for each in COMPONENTS if key in variants[value_name(each)])
    if kind == "ConfigMap":
        return "settings"
    return WORKLOADS.get(name.removesuffix("-headless"), "base")


def _object(key: Key, base: Objects, variants: Mapping[str, Objects]) -> str:
    there = {name: objects.get(key, ABSENT) for name, objects in variants.items()}
    text = _template(key, base.get(key, {})).render(base.get(key, ABSENT), there)
    # At the end of names in certificates, and in queries.
    text = re.sub(rf"\.{NAMESPACE}(?=\.svc|['\"\s])", ".{{ .Release.Namespace }}", text)
    return text.replace(f'namespace="{NAMESPACE}"', 'namespace="{{ .Release.Namespace }}"')


def _template(key: Key, manifest: Mapping[str, Any]) -> Template:
    """Says which fields of an object are values, or come from elsewhere."""
    kind, name = key
    values: dict[FieldPath, str] = {}
    texts: dict[FieldPath, str] = {("metadata", "namespace"): "{{ .Release.Namespace }}"}
    additions: dict[FieldPath, str] = {}
    match kind:
        case "Deployment" | "StatefulSet" | "Job":
            _add_workload(name, values, texts, additions)
        case "ConfigMap" if name == CHECKPOINT:
            values["data", "model"] = "model.name"
        case "ConfigMap" if name in WORKLOADS:
            settings = f"{WORKLOADS[name]}.settings"
            values |= {("data", each): f"{settings}.{each}" for each in manifest["data"]}
            known = " ".join(f'"{each}"' for each in manifest["data"])
            additions["data",] = (
                f"{{{{- range $name, $value := omit .Values.{settings} {known} }}}}\n"
                "  {{ $name }}: {{ toJson $value }}\n{{- end }}"
            )
        case "ConfigMap":
            board = name.removeprefix("lockstep-board-") + ".json"
            texts["data", board] = f'{{{{ .Files.Get "dashboards/{board}" | toJson }}}}'
        case "PrometheusRule":
            texts["spec",] = '{{- .Files.Get "rules.yml" | nindent 2 }}'
        case "PersistentVolumeClaim":
            volume = CLAIMS[name]
            values["spec", "resources", "requests", "storage"] = f"{volume}.size"
            values["spec", "accessModes", "0"] = f"{volume}.accessMode"
            additions["spec",] = _with(f"{volume}.storageClass", 2, "storageClassName")
        case "ServiceAccount":
            additions[()] = _with("imagePullSecrets", 0, "imagePullSecrets")
    return Template(values, texts, additions)


def _add_workload(
    name: str,
    values: dict[FieldPath, str],
    texts: dict[FieldPath, str],
    additions: dict[FieldPath, str],
) -> None:
    service = WORKLOADS.get(name, "model")
    pod = ("spec", "template", "spec")
    containers = [("initContainers", "wait-for-model"), ("containers", service)]
    if name == CHECKPOINT:
        containers = [("containers", "fetch-model")]
        # Another model or another image is another job, for one cannot be changed.
        texts["metadata", "name"] = (
            f'{CHECKPOINT}-{{{{ printf "%v %v" .Values.model.name .Values.model.image '
            "| sha256sum | trunc 10 }}"
        )
    else:
        values["spec", "replicas"] = f"{service}.replicas"
        for kind in ("requests", "limits"):
            for resource in ("cpu", "memory"):
                field = (*pod, "containers", service, "resources", kind, resource)
                values[field] = f"{service}.resources.{kind}.{resource}"
        # New settings make new pods.
        settings = '{{ include (print $.Template.BasePath "/settings.yaml") . | sha256sum }}'
        additions["spec", "template", "metadata"] = (
            f"      annotations:\n        checksum/settings: {settings}"
        )
    for container in containers:
        values[*pod, *container, "image"] = f"{service}.image"


def _with(value: str, indent: int, field: str) -> str:
    line = f"{' ' * indent}{field}: {{{{ toJson . }}}}"
    return f"{{{{- with .Values.{value} }}}}\n{line}\n{{{{- end }}}}"
