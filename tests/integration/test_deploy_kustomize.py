"""What `kubectl kustomize` renders is valid, restricted, and fits the services' settings."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from lockstep.v1 import model_service_pb2, tokenizer_service_pb2

from deploy.kubernetes.manifests import KUSTOMIZE as FOLDER
from deploy.kubernetes.manifests import kustomize
from tests.manifests import (
    OTHER_VARIABLES,
    OVERLAYS,
    RENDERED,
    containers,
    environment,
    named,
    of_kind,
    pod_labels,
    render,
    selects,
    services,
    workloads,
)

# The oldest and the newest that is still maintained, and those between.
VERSIONS = ["1.34", "1.35", "1.36", "1.37"]
# Of others: test_deploy_custom_resources.py.
CUSTOM = re.compile(r"cert-manager|coreos|gateway|inference|keda")

READINESS = {
    "lockstep-tokenizer": tokenizer_service_pb2.DESCRIPTOR.services_by_name["TokenizerService"],
    "lockstep-model": model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_every_object_is_valid(name, version):
    for manifest in render(name):
        if not CUSTOM.search(manifest["apiVersion"]):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found():
    (manifest,) = of_kind("cpu", "Deployment")
    broken = manifest | {"spec": manifest["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", RENDERED)
def test_no_new_call_is_led_to_pods_that_load_or_shut_down(name):
    for service in of_kind(name, "Service"):
        assert not service["spec"].get("publishNotReadyAddresses")


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_is_in_one_restricted_namespace(name):
    (namespace,) = of_kind(name, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [each for each in render(name) if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {namespace["metadata"]["name"]}


def test_a_second_pair_is_the_first_in_a_namespace_of_its_own():
    """So its model service finds the tokenizer service beside it by the same name."""
    second = kustomize(FOLDER / "pairs" / "green")
    text = yaml.safe_dump_all(second)
    assert "lockstep-green" in text
    moved = text.replace("lockstep-green", "lockstep")
    assert list(yaml.safe_load_all(moved)) == render("cpu")


@pytest.mark.parametrize("name", RENDERED)
def test_pods_have_no_rights_that_they_do_not_need(name):
    for workload in workloads(name):
        spec = workload["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@pytest.mark.parametrize("name", RENDERED)
def test_containers_may_write_nothing_and_gain_nothing(name):
    for container in containers(name):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", ()))


@pytest.mark.parametrize("name", RENDERED)
def test_containers_say_what_they_need_and_the_most_that_they_may_use(name):
    for container in containers(name):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), container["name"]


@pytest.mark.parametrize("name", RENDERED)
def test_images_have_a_version_that_stays_what_it_is(name):
    for container in containers(name):
        assert re.fullmatch(r"lockstep-(tokenizer|model):\d+\.\d+\.\d+", container["image"])


@pytest.mark.parametrize("name", RENDERED)
def test_a_step_is_not_stopped_for_its_threads(name):
    """The engine has a thread for each core asked for; the front has one core more."""
    for service, spec, settings in services(name):
        resources = spec["containers"][0]["resources"]
        if service == "lockstep-model":
            assert settings.threads == int(resources["requests"]["cpu"])
            assert settings.threads < int(resources["limits"]["cpu"])
        else:
            assert settings.threads == 0  # as many as the limit grants


@pytest.mark.parametrize("name", RENDERED)
def test_pods_are_spread_over_nodes_and_zones(name):
    for workload in of_kind(name, "Deployment", "StatefulSet"):
        pod = workload["spec"]["template"]
        spread = pod["spec"]["topologySpreadConstraints"]
        assert {each["topologyKey"] for each in spread} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        assert all(selects(each["labelSelector"], pod["metadata"]["labels"]) for each in spread)


@pytest.mark.parametrize("name", RENDERED)
def test_an_eviction_takes_one_replica_at_a_time(name):
    budgets = [each["spec"] for each in of_kind(name, "PodDisruptionBudget")]
    for workload in of_kind(name, "Deployment", "StatefulSet"):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        (budget,) = [each for each in budgets if selects(each["selector"], labels)]
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("name", RENDERED)
def test_a_pod_waits_for_the_model_that_it_serves(name):
    for service, spec, settings in services(name):
        (wait,) = spec["initContainers"]
        variables = environment(name, wait)
        assert wait["image"] == spec["containers"][0]["image"]
        assert wait["command"] == ["python", "-m", "checkpoints"]
        need = service.removeprefix("lockstep-")
        assert wait["args"] == ["--wait", f"--need={need}", "$(MODEL)"]
        assert variables["MODEL"] == settings.model
        served = environment(name, spec["containers"][0])
        for variable in OTHER_VARIABLES:
            assert variables[variable] == served[variable]


@pytest.mark.parametrize("name", RENDERED)
def test_kubernetes_does_not_inject_variables_named_like_settings(name):
    """`LOCKSTEP_TOKENIZER_PORT` would be `tcp://...` for the Service of that name."""
    for workload in workloads(name):
        assert workload["spec"]["template"]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", RENDERED)
def test_every_variable_is_a_setting_and_ports_are_where_the_service_listens(name):
    for service, spec, settings in services(name):
        ports = {port["name"]: port["containerPort"] for port in spec["containers"][0]["ports"]}
        expected = (settings.port, settings.health_port, settings.metrics_port)
        assert (ports["grpc"], ports["health"], ports["metrics"]) == expected, service
        assert settings.host == "0.0.0.0"


@pytest.mark.parametrize("name", RENDERED)
def test_probes_ask_the_health_port_for_services_that_exist(name):
    for service, spec, settings in services(name):
        container = spec["containers"][0]
        probes = {
            kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")
        }
        assert {probe["port"] for probe in probes.values()} == {settings.health_port}
        assert probes["startup"].get("service", "") == ""
        assert probes["readiness"]["service"] == READINESS[service].full_name
        assert probes["liveness"]["service"] == "liveness"


@pytest.mark.parametrize("name", RENDERED)
def test_a_pod_is_not_killed_before_it_has_drained(name):
    for _, spec, settings in services(name):
        sleep_s = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] >= sleep_s + settings.drain_timeout_s + 10


@pytest.mark.parametrize("name", RENDERED)
def test_the_model_service_follows_the_tokenizer_service(name):
    settings = {service: each for service, _, each in services(name)}
    model, tokenizer = settings["lockstep-model"], settings["lockstep-tokenizer"]
    assert model.model == tokenizer.model
    host, port = model.tokenizer_address.rsplit(":", 1)
    service = named(name, "Service", host)
    assert int(port) == service["spec"]["ports"][0]["port"] == tokenizer.port


@pytest.mark.parametrize("name", RENDERED)
def test_what_selects_pods_finds_the_pods_of_one_workload(name):
    selectors = [each["spec"]["selector"] for each in of_kind(name, "Service")]
    for each in of_kind(name, "PodDisruptionBudget", "Deployment", "StatefulSet"):
        selectors.append(each["spec"]["selector"]["matchLabels"])
    for selector in selectors:
        assert len([labels for labels in pod_labels(name) if selects(selector, labels)]) == 1


@pytest.mark.parametrize("name", RENDERED)
def test_services_lead_to_named_ports_and_one_has_no_cluster_address(name):
    settings = {service: each for service, _, each in services(name)}
    for service in of_kind(name, "Service"):
        (port,) = service["spec"]["ports"]
        pods = service["spec"]["selector"]["app.kubernetes.io/name"]
        if service["metadata"]["name"].endswith("-admin"):
            expected = ("admin", settings[pods].admin_port)
        else:
            expected = ("grpc", settings[pods].port)
        assert (port["targetPort"], port["port"]) == expected
        assert port["appProtocol"] == "kubernetes.io/h2c"
        headless = service["metadata"]["name"].endswith("-headless")
        assert (service["spec"].get("clusterIP") == "None") is headless
    (model,) = of_kind(name, "StatefulSet")
    names = {each["metadata"]["name"] for each in of_kind(name, "Service")}
    assert model["spec"]["serviceName"] in names


@pytest.mark.parametrize("name", RENDERED)
def test_a_replica_knows_its_name_and_where_it_is_found_by_it(name):
    model = named(name, "StatefulSet", "lockstep-model")
    (container,) = model["spec"]["template"]["spec"]["containers"]
    variables = environment(name, container)
    assert variables["POD_NAMESPACE"] == "lockstep"
    assert variables["POD_NAME"] == "lockstep-model-0"
    (settings,) = [each for service, _, each in services(name) if service == "lockstep-model"]
    headless = model["spec"]["serviceName"]
    where = f"{{pod}}.{headless}.{{namespace}}.svc.cluster.local:{settings.port}"
    assert settings.replica_address == where


@pytest.mark.parametrize("name", RENDERED)
def test_nothing_reaches_a_pod_except_calls_and_scrapes(name):
    policies = of_kind(name, "NetworkPolicy")
    (deny,) = [each for each in policies if each["metadata"]["name"].endswith("default-deny")]
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny["spec"].keys()
    denied = deny["spec"]["podSelector"]["matchLabels"]
    assert all(selects(denied, labels) for labels in pod_labels(name))

    by_name = {each["metadata"]["name"]: each["spec"] for each in policies}
    for service, _, settings in services(name):
        calls, scrapes = by_name[service]["ingress"]
        assert [port["port"] for port in calls["ports"]] == [settings.port]
        assert all("podSelector" in peer for peer in calls["from"])
        assert [port["port"] for port in scrapes["ports"]] == [settings.metrics_port]
        assert all(peer["namespaceSelector"]["matchLabels"] for peer in scrapes["from"])


@pytest.mark.parametrize("name", RENDERED)
def test_what_a_read_only_container_writes_is_on_a_volume(name):
    claims = {
        each["metadata"]["name"] for each in render(name) if each["kind"] == "PersistentVolumeClaim"
    }
    for service, spec, settings in services(name):
        mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in mounts.values()} == volumes.keys()
        for wait in spec["initContainers"]:
            assert {mount["name"] for mount in wait["volumeMounts"]} <= volumes.keys()
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim in claims or {"emptyDir", "secret", "image"} & volume.keys()
        assert mounts["/models"]["readOnly"] is True
        assert "/tmp" in mounts
        if service == "lockstep-tokenizer" and settings.store.startswith("sqlite"):
            store = Path(settings.store.removeprefix("sqlite:///")).parent
            assert volumes[mounts[str(store)]["name"]]["persistentVolumeClaim"]
