"""What `kubectl kustomize` renders: the overlays, and the components that no overlay has."""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from deploy.kubernetes.manifests import KUSTOMIZE as FOLDER
from deploy.kubernetes.manifests import build, kustomize
from model_service.front.settings import ModelSettings
from rpc.settings import ServerSettings
from tokenizer_service.settings import TokenizerSettings

OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
# Rendered on the base.
COMPONENTS = [
    "client-namespaces",
    "gateway",
    "image-volume",
    "inference-pool",
    "keda",
    "tls",
    "tracing",
]
RENDERED = [*OVERLAYS, *COMPONENTS]

Manifest = dict[str, Any]

SETTINGS: dict[str, type[ServerSettings]] = {
    "lockstep-tokenizer": TokenizerSettings,
    "lockstep-model": ModelSettings,
}
# Variables that both services read beside their settings.
OTHER_VARIABLES = {"LOCKSTEP_CACHE", "HF_HUB_CACHE"}


@cache
def render(name: str) -> list[Manifest]:
    """Returns the objects of an overlay, or of the base with a component."""
    if name in OVERLAYS:
        return kustomize(FOLDER / "overlays" / name)
    return build(name)


def of_kind(name: str, *kinds: str) -> list[Manifest]:
    """Returns the objects of some kinds. There is at least one."""
    found = [manifest for manifest in render(name) if manifest["kind"] in kinds]
    assert found, f"{name} has no {kinds}"
    return found


def named(name: str, kind: str, metadata_name: str) -> Manifest:
    """Returns the one object of a kind and a name."""
    (found,) = [each for each in of_kind(name, kind) if each["metadata"]["name"] == metadata_name]
    return found


def workloads(name: str) -> list[Manifest]:
    """Returns what makes pods."""
    return of_kind(name, "Deployment", "StatefulSet") + [
        each for each in render(name) if each["kind"] == "Job"
    ]


def containers(name: str) -> list[Manifest]:
    """Returns all containers, also those that run before the others."""
    pods = [each["spec"]["template"]["spec"] for each in workloads(name)]
    return [each for pod in pods for each in [*pod.get("initContainers", ()), *pod["containers"]]]


def environment(name: str, container: Manifest) -> dict[str, str]:
    """Returns the variables that a container gets."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(name, "ConfigMap")}
    variables: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        variables |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", ()):
        source = variable.get("valueFrom", {})
        if key := source.get("configMapKeyRef"):
            variables[variable["name"]] = maps[key["name"]][key["key"]]
        elif field := source.get("fieldRef"):
            fields = {"metadata.name": "lockstep-model-0", "metadata.namespace": "lockstep"}
            variables[variable["name"]] = fields[field["fieldPath"]]
        elif field := source.get("resourceFieldRef"):
            kind, resource = field["resource"].split(".")
            variables[variable["name"]] = container["resources"][kind][resource]
        elif "value" in variable:
            variables[variable["name"]] = variable["value"]
    return variables


def services(name: str) -> Iterator[tuple[str, Manifest, ServerSettings]]:
    """Gives name, pod specification and settings as the pod's environment makes them."""
    for workload in of_kind(name, "Deployment", "StatefulSet"):
        service = workload["metadata"]["name"]
        spec = workload["spec"]["template"]["spec"]
        variables = environment(name, spec["containers"][0])
        prefix = SETTINGS[service].model_config["env_prefix"]
        values = {
            key.removeprefix(prefix).lower(): value
            for key, value in variables.items()
            if key.startswith(prefix)
        }
        others = set(variables) - {prefix + key.upper() for key in values}
        foreign = {each for each in others if not each.startswith(("OTEL_", "POD_"))}
        assert foreign == OTHER_VARIABLES
        values = {key: _here(value) for key, value in values.items()}
        yield service, spec, SETTINGS[service](**values)


def _here(value: str) -> str:
    """Makes a file that a Secret would bring: settings must name files that are there."""
    if not value.startswith("/secrets/"):
        return value
    path = _root() / value[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def in_pod(path: Path) -> Path:
    """Returns where a file of a Secret is in its pod."""
    return Path("/") / path.relative_to(_root())


def _root() -> Path:
    return Path(_folder().name)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lockstep-secrets-")


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tells whether a selector with labels or expressions finds a pod."""
    if "matchLabels" in selector or "matchExpressions" in selector:
        return selector.get("matchLabels", {}).items() <= labels.items() and all(
            labels.get(each["key"]) in each["values"]
            for each in selector.get("matchExpressions", ())
        )
    return bool(selector) and selector.items() <= labels.items()


def pod_labels(name: str) -> list[dict[str, str]]:
    """Returns the labels of the pods of each workload."""
    return [each["spec"]["template"]["metadata"]["labels"] for each in workloads(name)]
