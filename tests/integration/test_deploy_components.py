"""What each component of deploy/kustomize adds, against what it stands on."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.grafana.boards import BOARDS
from deploy.kubernetes import alerts
from deploy.kubernetes.manifests import kustomize
from rpc.identity.roles import Role
from tests.manifests import (
    COMPONENTS,
    FOLDER,
    OVERLAYS,
    environment,
    in_pod,
    named,
    of_kind,
    pod_labels,
    render,
    selects,
    services,
)
from tokenizer_service.store.database import parse_url

METRICS = (FOLDER.parents[1] / "docs" / "metrics.md").read_text()


def test_replicas_share_a_database_whose_password_is_a_file_of_a_secret():
    (tokenizer,) = of_kind("replicated", "Deployment")
    assert tokenizer["spec"]["replicas"] > 1
    assert tokenizer["spec"]["strategy"]["type"] == "RollingUpdate"
    claims = {each["metadata"]["name"] for each in of_kind("replicated", "PersistentVolumeClaim")}
    assert claims == {"lockstep-models"}

    (settings, spec) = next(
        (settings, spec)
        for service, spec, settings in services("replicated")
        if service == "lockstep-tokenizer"
    )
    url = parse_url(settings.store)
    assert (url.get_backend_name(), url.password) == ("postgresql", None)
    (mount,) = [
        each
        for each in spec["containers"][0]["volumeMounts"]
        if each["mountPath"] == str(in_pod(settings.store_password_file).parent)
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
    for service, spec, _ in services("gpu"):
        assert endpoint["port"] in {port["name"] for port in spec["containers"][0]["ports"]}
        assert service in wanted["values"]


def test_every_component_is_rendered_here():
    used = set(COMPONENTS)
    for name in OVERLAYS:
        text = (FOLDER / "overlays" / name / "kustomization.yaml").read_text()
        used |= {Path(each).name for each in yaml.safe_load(text).get("components", ())}
    assert used == {path.name for path in (FOLDER / "components").iterdir()}


class TestFetchModel:
    @pytest.fixture
    def job(self):
        (job,) = of_kind("cpu", "Job")
        return job

    @pytest.fixture
    def container(self, job):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        return container

    def test_it_writes_the_model_that_is_served_where_the_services_read(self, container):
        variables = environment("cpu", container)
        for _, spec, settings in services("cpu"):
            served = environment("cpu", spec["containers"][0])
            assert variables["MODEL"] == settings.model
            assert variables["LOCKSTEP_CACHE"] == served["LOCKSTEP_CACHE"]
            assert variables["HF_HUB_CACHE"] == served["HF_HUB_CACHE"]
        assert container["args"] == ["$(MODEL)"]

    def test_another_model_is_another_job_and_the_same_one_is_not(self, job, tmp_path):
        """Jobs cannot be changed: a second `kubectl apply` must change none."""
        overlay = FOLDER / "overlays" / "cpu"
        kustomization = {
            "resources": [str(Path(*[".."] * len(tmp_path.parts[1:])) / str(overlay)[1:])],
            "configMapGenerator": [
                {
                    "name": "lockstep-checkpoint",
                    "namespace": "lockstep",
                    "behavior": "merge",
                    "literals": ["model=org/other"],
                }
            ],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        objects = kustomize(tmp_path)
        (other,) = [each for each in objects if each["kind"] == "Job"]
        assert other["metadata"]["name"] != job["metadata"]["name"]
        names = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
        assert other["metadata"]["name"] in names
        (again,) = [each for each in kustomize(overlay) if each["kind"] == "Job"]
        assert again == job

    def test_it_is_gone_before_an_upgrade_changes_its_image(self, job):
        assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 600

    def test_a_token_of_the_hub_is_used_if_there_is_a_secret(self, container):
        (token,) = [each for each in container["env"] if each["name"] == "HF_TOKEN"]
        assert token["valueFrom"]["secretKeyRef"]["optional"] is True


class TestTLS:
    def test_callers_need_a_certificate_and_the_services_show_theirs(self):
        for service, _, settings in services("tls"):
            files = [settings.tls_certificate, settings.tls_key, settings.tls_client_ca]
            if service == "lockstep-model":
                files += [
                    settings.tokenizer_tls_certificate,
                    settings.tokenizer_tls_key,
                    settings.tokenizer_tls_ca,
                ]
            # The keys of a Secret that cert-manager writes.
            names = [file.name for file in files]
            assert names == ["tls.crt", "tls.key", "ca.crt"] * (len(files) // 3)
            assert {str(in_pod(file).parent) for file in files} == {"/secrets/tls"}

    def test_a_service_mounts_the_secret_that_its_certificate_is_written_to(self):
        for service, spec, _ in services("tls"):
            certificate = named("tls", "Certificate", service)["spec"]
            mounts = {each["mountPath"]: each for each in spec["containers"][0]["volumeMounts"]}
            volumes = {each["name"]: each for each in spec["volumes"]}
            mount = mounts["/secrets/tls"]
            assert mount["readOnly"] is True
            assert volumes[mount["name"]]["secret"]["secretName"] == certificate["secretName"]

    def test_a_certificate_has_every_name_that_its_service_is_called_by(self):
        for service in of_kind("tls", "Service"):
            name = service["metadata"]["name"]
            certificate = named("tls", "Certificate", name.removesuffix("-headless"))["spec"]
            for suffix in ("", ".lockstep", ".lockstep.svc", ".lockstep.svc.cluster.local"):
                assert name + suffix in certificate["dnsNames"]
            assert "server auth" in certificate["usages"]
        headless = named("tls", "StatefulSet", "lockstep-model")["spec"]["serviceName"]
        replicas = f"*.{headless}.lockstep.svc"
        assert replicas in named("tls", "Certificate", "lockstep-model")["spec"]["dnsNames"]

    def test_what_calls_another_service_has_a_certificate_to_show(self):
        for name in ("lockstep-model", "lockstep-client"):
            assert "client auth" in named("tls", "Certificate", name)["spec"]["usages"]

    def test_every_certificate_is_of_an_issuer_that_is_there(self):
        issuers = {each["metadata"]["name"] for each in of_kind("tls", "Issuer")}
        for certificate in of_kind("tls", "Certificate"):
            assert certificate["spec"]["issuerRef"]["name"] in issuers


class TestPrincipals:
    def test_a_caller_without_credentials_may_change_and_generate_nothing(self):
        for _, _, settings in services("production"):
            assert settings.anonymous_roles <= {Role.INFO, Role.METRICS}
            assert in_pod(settings.principals) == Path("/secrets/principals/principals.toml")

    def test_admin_services_have_a_port_that_nobody_else_reaches(self):
        ports = {settings.admin_port for _, _, settings in services("production")}
        admins = named("production", "NetworkPolicy", "lockstep-admin")["spec"]["ingress"]
        assert {port["port"] for rule in admins for port in rule["ports"]} == ports
        for policy in of_kind("production", "NetworkPolicy"):
            if policy["metadata"]["name"] != "lockstep-admin":
                for rule in policy["spec"].get("ingress", ()):
                    assert not ports & {port["port"] for port in rule["ports"]}
        for service, spec, settings in services("production"):
            declared = {
                port["name"]: port["containerPort"] for port in spec["containers"][0]["ports"]
            }
            assert declared["admin"] == settings.admin_port, service


class TestAutoscalers:
    def test_the_model_service_is_scaled_by_metrics_that_it_has(self):
        scaler = named("production", "HorizontalPodAutoscaler", "lockstep-model")["spec"]
        metrics = {each["pods"]["metric"]["name"] for each in scaler["metrics"]}
        (scaled,) = of_kind("keda", "ScaledObject")
        queries = [each["metadata"]["query"] for each in scaled["spec"]["triggers"]]
        asked = {re.search(r"\((\w+)\{", query)[1] for query in queries}
        assert asked == metrics
        for metric in metrics:
            assert f"| `{metric}` | gauge |" in METRICS

    @pytest.mark.parametrize(
        ("name", "kind"), [("production", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")]
    )
    def test_what_is_scaled_is_there_and_an_apply_does_not_reset_it(self, name, kind):
        for scaler in of_kind(name, kind):
            target = scaler["spec"]["scaleTargetRef"]
            workload = named(name, target["kind"], target["name"])
            assert workload["apiVersion"] == target["apiVersion"]
            assert "replicas" not in workload["spec"]

    def test_the_tokenizer_service_has_a_store_for_replicas_where_it_is_scaled(self):
        for name in OVERLAYS:
            scalers = [each for each in render(name) if each["kind"] == "HorizontalPodAutoscaler"]
            if any(each["metadata"]["name"] == "lockstep-tokenizer" for each in scalers):
                settings = {service: each for service, _, each in services(name)}
                assert settings["lockstep-tokenizer"].store.startswith("postgresql")

    def test_replicas_with_sessions_are_taken_away_slowly(self):
        scaler = named("production", "HorizontalPodAutoscaler", "lockstep-model")["spec"]
        (scaled,) = of_kind("keda", "ScaledObject")
        advanced = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
        assert scaler["behavior"]["scaleDown"] == advanced["behavior"]["scaleDown"]
        assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def _routed(name: str) -> dict[str, set[str]]:
    """Gives the services of the schema that routes lead to, by what they are sent to."""
    found: dict[str, set[str]] = {}
    for route in of_kind(name, "GRPCRoute" if name == "gateway" else "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            (backend,) = rule["backendRefs"]
            for match in rule["matches"]:
                service = match.get("method", {}).get("service") or match["path"]["value"][1:]
                found.setdefault(backend["name"], set()).add(service)
    return found


class TestRoutes:
    def test_all_services_have_one_except_those_that_change_something(self):
        protos = (FOLDER.parents[1] / "protos" / "lockstep" / "v1").glob("*_service.proto")
        texts = [path.read_text() for path in protos]
        names = {match for text in texts for match in re.findall(r"^service (\w+)", text, re.M)}
        public = {f"lockstep.v1.{name}" for name in names if "Admin" not in name}
        routed = _routed("gateway")
        assert set().union(*routed.values()) == public
        assert routed["lockstep-tokenizer"] == {"lockstep.v1.TokenizerService"}
        assert _routed("inference-pool") == routed

    def test_a_route_leads_to_a_port_of_a_service(self):
        for route in of_kind("gateway", "GRPCRoute"):
            for rule in route["spec"]["rules"]:
                (backend,) = rule["backendRefs"]
                (port,) = named("gateway", "Service", backend["name"])["spec"]["ports"]
                assert port["port"] == backend["port"]

    def test_a_pool_has_the_pods_of_the_model_service_and_their_port(self):
        (pool,) = of_kind("inference-pool", "InferencePool")
        found = [
            labels
            for labels in pod_labels("inference-pool")
            if selects(pool["spec"]["selector"], labels)
        ]
        assert [each["app.kubernetes.io/name"] for each in found] == ["lockstep-model"]
        (port,) = pool["spec"]["targetPorts"]
        settings = {service: each for service, _, each in services("inference-pool")}
        assert port["number"] == settings["lockstep-model"].port


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("client-namespaces", "lockstep-client-namespaces"),
        ("gateway", "lockstep-gateway"),
        ("inference-pool", "lockstep-endpoint-picker"),
        ("inference-pool", "lockstep-gateway"),
    ],
)
def test_a_policy_lets_somebody_named_in_to_ports_that_pods_have(name, policy):
    spec = named(name, "NetworkPolicy", policy)["spec"]
    chosen = [labels for labels in pod_labels(name) if selects(spec["podSelector"], labels)]
    assert chosen
    ports = set()
    for service, _, settings in services(name):
        if any(labels["app.kubernetes.io/name"] == service for labels in chosen):
            ports |= {settings.port, settings.metrics_port}
    for rule in spec["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= ports
        for peer in rule["from"]:
            assert all(selector["matchLabels"] for selector in peer.values())


def test_traces_may_leave_for_the_collector_that_they_are_sent_to():
    (rule,) = named("tracing", "NetworkPolicy", "lockstep-traces")["spec"]["egress"]
    (peer,), (port,) = rule["to"], rule["ports"]
    namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    for _, spec, _ in services("tracing"):
        variables = environment("tracing", spec["containers"][0])
        endpoint = urlsplit(variables["OTEL_EXPORTER_OTLP_ENDPOINT"])
        assert endpoint.hostname.endswith(f".{namespace}")
        assert endpoint.port == port["port"]


def test_the_alerts_of_the_operator_are_those_of_the_file():
    assert alerts.OBJECT.read_text() == alerts.render(), "Run `make docs`."
    (rules,) = of_kind("production", "PrometheusRule")
    assert rules["spec"] == yaml.safe_load(alerts.RULES.read_text())


def test_every_board_is_a_config_map_that_grafana_looks_for():
    boards = {
        name: each["data"][name]
        for each in of_kind("production", "ConfigMap")
        if each["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
        for name in each["data"]
    }
    folder = FOLDER.parent / "grafana" / "dashboards"
    assert boards.keys() == {f"{board.name}.json" for board in BOARDS}
    assert all((folder / name).read_text() == text for name, text in boards.items())


def test_a_model_from_an_image_needs_no_claim():
    for _, spec, _ in services("image-volume"):
        (models,) = [each for each in spec["volumes"] if each["name"] == "models"]
        assert models.keys() == {"name", "image"}
        assert ":" in models["image"]["reference"]
    claims = {each["metadata"]["name"] for each in of_kind("image-volume", "PersistentVolumeClaim")}
    assert claims == {"lockstep-vocabulary"}
