"""What `kubectl kustomize` renders is valid, restricted, and fits the services' settings."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from lockstep.v1 import model_service_pb2, tokenizer_service_pb2

from model_service.front.settings import ModelSettings
from rpc.settings import ServerSettings
from tokenizer_service.settings import TokenizerSettings
from tokenizer_service.store.database import parse_url

FOLDER = Path(__file__).parents[2] / "deploy" / "kustomize"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
# preStop's sleep action is in every later version; these are the oldest and the newest checked.
VERSIONS = ["1.34", "1.37"]
CUSTOM_KINDS = {"PodMonitor"}  # no schema of theirs is at hand

Manifest = dict[str, Any]

SETTINGS: dict[str, type[ServerSettings]] = {
    "lockstep-tokenizer": TokenizerSettings,
    "lockstep-model": ModelSettings,
}
READINESS = {
    "lockstep-tokenizer": tokenizer_service_pb2.DESCRIPTOR.services_by_name["TokenizerService"],
    "lockstep-model": model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
}


@cache
def render(overlay: str) -> list[Manifest]:
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(result.stdout))


def of_kind(overlay: str, *kinds: str) -> list[Manifest]:
    found = [manifest for manifest in render(overlay) if manifest["kind"] in kinds]
    assert found, f"{overlay} has no {kinds}"
    return found


def workloads(overlay: str) -> list[Manifest]:
    return of_kind(overlay, "Deployment", "StatefulSet", "Job")


def services_of_ours(overlay: str) -> Iterator[tuple[str, Manifest, ServerSettings]]:
    """Gives name, pod specification and settings as the pod's environment makes them."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(overlay, "ConfigMap")}
    for workload in of_kind(overlay, "Deployment", "StatefulSet"):
        name = workload["metadata"]["name"]
        spec = workload["spec"]["template"]["spec"]
        (source,) = spec["containers"][0]["envFrom"]
        variables = maps[source["configMapRef"]["name"]]
        prefix = SETTINGS[name].model_config["env_prefix"]
        values = {
            key.removeprefix(prefix).lower(): value
            for key, value in variables.items()
            if key.startswith(prefix)
        }
        assert set(variables) - {prefix + key.upper() for key in values} == {"LOCKSTEP_CACHE"}
        yield name, spec, SETTINGS[name](**values)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def pod_labels(overlay: str) -> list[dict[str, str]]:
    return [each["spec"]["template"]["metadata"]["labels"] for each in workloads(overlay)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay, version):
    for manifest in render(overlay):
        if manifest["kind"] not in CUSTOM_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found():
    (manifest,) = of_kind("cpu", "Deployment")
    broken = manifest | {"spec": manifest["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_restricted_namespace(overlay):
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [each for each in render(overlay) if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_no_rights_that_they_do_not_need(overlay):
    for workload in workloads(overlay):
        spec = workload["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            assert "memory" in container["resources"]["requests"]
            assert not {"hostPort"} & {key for port in container.get("ports", ()) for key in port}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_does_not_inject_variables_named_like_settings(overlay):
    """`LOCKSTEP_TOKENIZER_PORT` would be `tcp://...` for the Service of that name."""
    for workload in workloads(overlay):
        assert workload["spec"]["template"]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_and_ports_are_where_the_service_listens(overlay):
    for name, spec, settings in services_of_ours(overlay):
        ports = {port["name"]: port["containerPort"] for port in spec["containers"][0]["ports"]}
        expected = (settings.port, settings.health_port, settings.metrics_port)
        assert (ports["grpc"], ports["health"], ports["metrics"]) == expected, name
        assert settings.host == "0.0.0.0"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_the_health_port_for_services_that_exist(overlay):
    for name, spec, settings in services_of_ours(overlay):
        container = spec["containers"][0]
        probes = {
            kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")
        }
        assert {probe["port"] for probe in probes.values()} == {settings.health_port}
        assert probes["startup"].get("service", "") == ""
        assert probes["readiness"]["service"] == READINESS[name].full_name
        assert probes["liveness"]["service"] == "liveness"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_not_killed_before_it_has_drained(overlay):
    for _, spec, settings in services_of_ours(overlay):
        sleep_s = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] >= sleep_s + settings.drain_timeout_s + 10


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_model_service_follows_the_tokenizer_service(overlay):
    settings = {name: each for name, _, each in services_of_ours(overlay)}
    model, tokenizer = settings["lockstep-model"], settings["lockstep-tokenizer"]
    assert model.model == tokenizer.model
    host, port = model.tokenizer_address.rsplit(":", 1)
    (service,) = [each for each in of_kind(overlay, "Service") if each["metadata"]["name"] == host]
    assert int(port) == service["spec"]["ports"][0]["port"] == tokenizer.port


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_selects_pods_finds_the_pods_of_one_workload(overlay):
    selectors = [each["spec"]["selector"] for each in of_kind(overlay, "Service")]
    for each in of_kind(overlay, "PodDisruptionBudget", "Deployment", "StatefulSet"):
        selectors.append(each["spec"]["selector"]["matchLabels"])
    for selector in selectors:
        assert len([labels for labels in pod_labels(overlay) if selects(selector, labels)]) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_lead_to_named_ports_and_one_has_no_cluster_address(overlay):
    settings = {name: each for name, _, each in services_of_ours(overlay)}
    for service in of_kind(overlay, "Service"):
        (port,) = service["spec"]["ports"]
        pods = service["spec"]["selector"]["app.kubernetes.io/name"]
        assert (port["targetPort"], port["port"]) == ("grpc", settings[pods].port)
        assert port["appProtocol"] == "kubernetes.io/h2c"
        headless = service["metadata"]["name"].endswith("-headless")
        assert (service["spec"].get("clusterIP") == "None") is headless
    (model,) = of_kind(overlay, "StatefulSet")
    names = {each["metadata"]["name"] for each in of_kind(overlay, "Service")}
    assert model["spec"]["serviceName"] in names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_reaches_a_pod_except_calls_and_scrapes(overlay):
    policies = of_kind(overlay, "NetworkPolicy")
    (deny,) = [each for each in policies if each["metadata"]["name"].endswith("default-deny")]
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny["spec"].keys()
    denied = deny["spec"]["podSelector"]["matchLabels"]
    assert all(selects(denied, labels) for labels in pod_labels(overlay))

    by_name = {each["metadata"]["name"]: each["spec"] for each in policies}
    for name, _, settings in services_of_ours(overlay):
        calls, scrapes = by_name[name]["ingress"]
        assert [port["port"] for port in calls["ports"]] == [settings.port]
        assert all("podSelector" in peer for peer in calls["from"])
        assert [port["port"] for port in scrapes["ports"]] == [settings.metrics_port]
        assert all(peer["namespaceSelector"]["matchLabels"] for peer in scrapes["from"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_read_only_container_writes_is_on_a_volume(overlay):
    claims = {each["metadata"]["name"] for each in of_kind(overlay, "PersistentVolumeClaim")}
    for name, spec, settings in services_of_ours(overlay):
        mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in mounts.values()} == volumes.keys()
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim in claims or "emptyDir" in volume or "secret" in volume
        assert mounts["/models"]["readOnly"] is True
        assert "/tmp" in mounts
        if name == "lockstep-tokenizer" and settings.store.startswith("sqlite"):
            store = Path(settings.store.removeprefix("sqlite:///")).parent
            assert volumes[mounts[str(store)]["name"]]["persistentVolumeClaim"]


def test_replicas_share_a_database_whose_password_is_a_file_of_a_secret():
    (tokenizer,) = of_kind("replicated", "Deployment")
    assert tokenizer["spec"]["replicas"] > 1
    assert tokenizer["spec"]["strategy"]["type"] == "RollingUpdate"
    claims = {each["metadata"]["name"] for each in of_kind("replicated", "PersistentVolumeClaim")}
    assert claims == {"lockstep-models"}

    (settings, spec) = next(
        (settings, spec)
        for name, spec, settings in services_of_ours("replicated")
        if name == "lockstep-tokenizer"
    )
    url = parse_url(settings.store)
    assert (url.get_backend_name(), url.password) == ("postgresql", None)
    (mount,) = [
        each
        for each in spec["containers"][0]["volumeMounts"]
        if each["mountPath"] == str(settings.store_password_file.parent)
    ]
    (volume,) = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    assert mount["readOnly"] is True
    assert volume["secret"]["secretName"]
    (policy,) = [
        each
        for each in of_kind("replicated", "NetworkPolicy")
        if each["metadata"]["name"] == "lockstep-tokenizer-store"
    ]
    (rule,) = policy["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [url.port]
    labels = tokenizer["spec"]["template"]["metadata"]["labels"]
    assert selects(policy["spec"]["podSelector"]["matchLabels"], labels)


def test_prometheus_scrapes_the_pods_by_a_port_that_they_have():
    (monitor,) = of_kind("gpu", "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (wanted,) = monitor["spec"]["selector"]["matchExpressions"]
    for name, spec, _ in services_of_ours("gpu"):
        assert endpoint["port"] in {port["name"] for port in spec["containers"][0]["ports"]}
        assert name in wanted["values"]


def test_the_job_that_fetches_the_model_writes_where_the_services_read():
    (job,) = of_kind("cpu", "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    maps = [each["data"]["LOCKSTEP_CACHE"] for each in of_kind("cpu", "ConfigMap")]
    assert {variables["LOCKSTEP_CACHE"]} == set(maps)
    models = {settings.model for _, _, settings in services_of_ours("cpu")}
    assert set(container["args"]) == models
