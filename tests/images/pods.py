"""The pods of an overlay as podman plays them: on this machine's network and folders."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.manifests import Manifest

# What podman has no use for or no notion of.
_LEFT_OUT = ("serviceAccountName", "topologySpreadConstraints")
_NAMESPACE = "metadata.namespace"
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def pod(manifests: Sequence[Manifest], workload: str, folders: Mapping[str, Path]) -> str:
    """Returns a pod of a workload, with the ConfigMaps that it reads, as YAML.

    Args:
        manifests: all objects.
        workload: the workload's name, without a hash.
        folders: what stands in place of each volume claim and Secret, by its name.
    """
    (owner,) = [
        each
        for each in manifests
        if each["kind"] in ("Deployment", "StatefulSet", "Job")
        and each["metadata"]["name"].startswith(workload)
    ]
    spec = copy.deepcopy(owner["spec"]["template"]["spec"])
    for name in _LEFT_OUT:
        spec.pop(name, None)
    for volume in spec["volumes"]:
        claim = volume.pop("persistentVolumeClaim", {}).get("claimName")
        secret = volume.pop("secret", {}).get("secretName")
        if name := claim or secret:
            volume["hostPath"] = {"path": str(folders[name]), "type": "Directory"}
    spec["hostNetwork"] = True
    spec["restartPolicy"] = "Never"  # podman would restart the containers that wait, too
    names = {each["metadata"]["name"] for each in manifests if each["kind"] == "Service"}
    maps = [copy.deepcopy(each) for each in manifests if each["kind"] == "ConfigMap"]
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        container.pop("ports", None)
        container["image"] = f"localhost/{container['image']}"
        container["imagePullPolicy"] = "Never"
        for probe in _PROBES:
            container.pop(probe, None)
        _expand(container, {each["metadata"]["name"]: each["data"] for each in maps})
    for each in maps:
        each["metadata"].pop("namespace", None)
        for key, value in each["data"].items():
            if value.partition(":")[0] in names:  # there are no Services here
                each["data"][key] = f"127.0.0.1:{value.partition(':')[2]}"
    labels = owner["spec"]["template"]["metadata"]["labels"]
    made: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": workload, "labels": labels},
        "spec": spec,
    }
    return "---\n".join(json.dumps(each, indent=2) + "\n" for each in [*maps, made])


def _expand(container: Manifest, maps: Mapping[str, Mapping[str, str]]) -> None:
    """Puts in what Kubernetes knows and podman does not: the namespace, variables in arguments."""
    for variable in container.get("env", ()):
        if variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == _NAMESPACE:
            del variable["valueFrom"]
            variable["value"] = "lockstep"
        if source := variable.get("valueFrom", {}).get("configMapKeyRef"):
            name, value = variable["name"], maps[source["name"]][source["key"]]
            arguments = container.get("args", ())
            container["args"] = [each.replace(f"$({name})", value) for each in arguments]
