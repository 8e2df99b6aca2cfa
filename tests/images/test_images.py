"""The images, run by the pods of the overlay `cpu` with `principals`: `make test-images`."""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.kubernetes.manifests import KUSTOMIZE, Manifest, kustomize
from lockstep_client import Lockstep, LockstepError
from tests.images.pods import pod

pytestmark = [pytest.mark.images, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
USER = 10001
SERVICES = ("tokenizer", "model")
TOKEN = secrets.token_hex(32)
WAIT = ("-m", "checkpoints", "--wait", "--need=tokenizer", "smollm2-135m-instruct")
PRINCIPALS = f"""
[operator]
roles = ["inference", "session", "info", "vocabulary-admin", "model-admin"]
token_sha256 = ["{hashlib.sha256(TOKEN.encode()).hexdigest()}"]
"""


def _with_principals(folder: Path) -> list[Manifest]:
    folder.mkdir()
    there = os.path.relpath(KUSTOMIZE, folder)
    kustomization = {
        "resources": [f"{there}/overlays/cpu"],
        "components": [f"{there}/components/principals"],
        "namespace": "lockstep",
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return kustomize(folder)


class Podman:
    """Plays pods, and looks at their containers.

    Attributes:
        folder: what is written here: volumes, pods.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("lockstep-models", "lockstep-vocabulary", "lockstep-principals")
        self.volumes = {name: folder / name for name in names}
        for path in self.volumes.values():
            path.mkdir()
            os.chown(path, USER, USER)
        (self.volumes["lockstep-principals"] / "principals.toml").write_text(PRINCIPALS)
        self.manifests = _with_principals(folder / "overlay")
        self._played: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Runs a command and returns what it prints."""
        result = subprocess.run(
            ["podman", *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        if check:
            assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    def play(self, workload: str) -> subprocess.Popen[str]:
        """Begins to play a pod; this ends when its first containers have."""
        path = self.folder / f"{workload}.yaml"
        path.write_text(pod(self.manifests, workload, self.volumes))
        command = ["podman", "play", "kube", "--network=host", str(path)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
        self._played.append(process)
        return process

    def logs(self, container: str) -> str:
        """Returns what a container wrote; nothing if there is none yet."""
        result = subprocess.run(
            ["podman", "logs", container], capture_output=True, text=True, check=False
        )
        return result.stdout + result.stderr if result.returncode == 0 else ""

    def exit_code(self, container: str) -> int:
        """Waits for the end of a container."""
        return int(self("wait", container).split()[-1])

    def close(self) -> None:
        """Removes the pods that were played."""
        for process in self._played:  # one that waits holds the locks of its pod
            process.kill()
            process.wait()
        for path in self.folder.glob("*.yaml"):
            self("pod", "rm", "--force", "--time=5", "--ignore", path.stem, check=False)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    os.environ["CONTAINERS_CONF"] = str(Path(__file__).with_name("containers.conf"))
    running = Podman(tmp_path_factory.mktemp("podman"))
    for path in (running.folder, *running.folder.parents):
        if path.owner() == "root" and path != Path("/") and "pytest" in str(path):
            path.chmod(0o755)  # the pods' user looks in
    yield running
    running.close()


@pytest.fixture(scope="module")
def waiting(podman: Podman) -> dict[str, subprocess.Popen[str]]:
    """Both pods, before there is a model."""
    return {service: podman.play(f"lockstep-{service}") for service in SERVICES}


@pytest.fixture(scope="module")
def model(podman: Podman, waiting: dict[str, subprocess.Popen[str]]) -> None:
    """Fetches the model with the job, or takes the one that this machine has."""
    cache = Path("~/.cache/lockstep").expanduser()
    if os.environ.get("LOCKSTEP_TEST_FETCH") == "1" or not (cache / "converted").is_dir():
        podman.play("lockstep-checkpoint")
        wait_until(lambda: "lockstep-checkpoint-fetch-model" in podman("ps", "-a"))
        assert podman.exit_code("lockstep-checkpoint-fetch-model") == 0
    else:
        part = podman.volumes["lockstep-models"] / "part"
        shutil.copytree(cache / "converted", part)
        part.rename(part.with_name("converted"))


@pytest.fixture(scope="module")
def client(podman: Podman, model: None) -> Iterator[Lockstep]:
    with Lockstep(token=TOKEN, token_in_plain_text=True) as lockstep:
        lockstep.wait_until_ready(timeout=240)
        yield lockstep


def wait_until(holds, limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_pods_wait_for_the_model_and_say_so(podman, waiting):
    for service in SERVICES:
        name = f"lockstep-{service}-wait-for-model"
        played = waiting[service]
        wait_until(
            lambda name=name, played=played: (
                played.poll() is not None or "Waiting for the model." in podman.logs(name)
            )
        )
        assert "smollm2-135m-instruct-" in podman.logs(name)  # the file, by its hash
        assert "/models" in podman.logs(name)
        assert waiting[service].poll() is None


def test_text_is_generated_through_both(client):
    out = client.generate("The capital of France is", max_new_tokens=5)
    assert "Paris" in out.text


@pytest.mark.parametrize("service", SERVICES)
def test_every_probe_of_the_manifests_is_answered_well(podman, client, service):
    (workload,) = [
        each
        for each in podman.manifests
        if each["kind"] in ("Deployment", "StatefulSet")
        and each["metadata"]["name"] == f"lockstep-{service}"
    ]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    for kind in ("startup", "readiness", "liveness"):
        probe = container[f"{kind}Probe"]["grpc"]
        with grpc.insecure_channel(f"127.0.0.1:{probe['port']}") as channel:
            request = health_pb2.HealthCheckRequest(service=probe.get("service", ""))
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, kind


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_runs_as_nobody_in_particular_and_writes_to_volumes_only(
    podman, client, service
):
    name = f"lockstep-{service}-{service}"
    assert podman("exec", name, "id", "-u").strip() == str(USER)
    for path in ("/file", "/models/file", "/opt/lockstep/file"):
        assert "Read-only file system" in podman("exec", name, "touch", path, check=False)
    podman("exec", name, "touch", "/cache/file", "/tmp/file")


def test_the_engine_has_a_thread_for_each_core_that_was_asked_for(podman, client):
    variables = podman("exec", "lockstep-model-model", "env").splitlines()
    assert "LOCKSTEP_MODEL_THREADS=2" in variables


def test_an_added_token_is_known_to_both_and_survives_the_tokenizer_service(podman, client):
    with pytest.raises(LockstepError):  # at its own port only
        client.vocabulary.add_tokens(["<image-test>"])
    with Lockstep("localhost:50061", token=TOKEN, token_in_plain_text=True) as admin:
        admin.vocabulary.add_tokens(["<image-test>"])
    encoded = client.tokenizer.encode("<image-test>")
    client.model.generate(encoded, max_new_tokens=1)
    podman("restart", "--time=75", "lockstep-tokenizer-tokenizer")
    client.wait_until_ready(timeout=240)
    assert client.tokenizer.encode("<image-test>").input_ids == encoded.input_ids


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_says_what_it_is_and_what_is_in_it(podman, service):
    (image,) = json.loads(podman("image", "inspect", f"localhost/lockstep-{service}:0.1.0"))
    labels = image["Labels"]
    for name in ("title", "version", "revision", "created", "licenses", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"]
    bill = json.loads((ROOT / ".lockstep" / "images" / f"lockstep-{service}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    names = {component["name"] for component in bill["components"]}
    assert {"grpcio", "transformers"} <= names
    assert ("torch" in names) is (service == "model")


def test_a_model_in_an_image_is_found_where_it_is_mounted(podman, model):
    weights = "localhost/lockstep-weights:test"
    file = str(ROOT / "deploy" / "containers" / "weights.Containerfile")
    folder = str(podman.volumes["lockstep-models"])
    podman("build", "--isolation=chroot", f"--file={file}", f"--tag={weights}", folder)
    mount = f"--mount=type=image,source={weights},destination=/models"
    command = ["--entrypoint=python", "--env=LOCKSTEP_CACHE=/models", "--network=host", mount]
    found = podman("run", "--rm", *command, "localhost/lockstep-tokenizer:0.1.0", *WAIT)
    assert found.startswith("/models/converted/smollm2-135m-instruct")
    podman("image", "rm", weights)


def test_a_running_call_finishes_while_its_pod_drains(podman, client):
    """Last: nothing runs afterwards."""
    pieces = client.stream("One, two, three,", max_new_tokens=120, eos_token_id=[], do_sample=False)
    first = next(pieces)
    stop = threading.Thread(
        target=podman, args=("stop", "--time=75", "lockstep-model-model"), daemon=True
    )
    stop.start()
    text = first + "".join(pieces)
    stop.join()
    assert len(text) > 200
    assert podman.exit_code("lockstep-model-model") == 0
    podman("stop", "--time=75", "lockstep-tokenizer-tokenizer")
    assert podman.exit_code("lockstep-tokenizer-tokenizer") == 0
