"""How a model service calls the tokenizer service, and what it says about it."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lockstep.v1 import model_info_service_pb2 as info_pb
from lockstep.v1 import model_service_pb2, vocabulary_pb2
from prometheus_client.parser import text_string_to_metric_families

from tests.checkpoint_factory import VOCABULARY_SIZE, make_checkpoint
from tests.integration.growing import Tokenizer, running_tokenizer, state, with_values
from tests.integration.holding_proxy import holding_proxy
from tests.integration.model_process import (
    ModelProcess,
    counting_process,
    model_process,
    ragged,
    refusal,
)
from tests.ports import free_port
from tests.services import ServiceProcess

FOLLOWING = info_pb.VOCABULARY_FOLLOW_STATE_FOLLOWING
DISCONNECTED = info_pb.VOCABULARY_FOLLOW_STATE_DISCONNECTED
CONFLICT = info_pb.VOCABULARY_FOLLOW_STATE_CONFLICT


def following(model: ModelProcess) -> info_pb.VocabularyFollowing:
    request = info_pb.GetModelInfoRequest()
    found = model.info.GetModelInfo(request, timeout=10).vocabulary_following
    assert state(model).following.state == found.state
    return found


def wait_for(model: ModelProcess, expected: int, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while (found := following(model)).state != expected:
        assert time.monotonic() < deadline, (found, model.log())
        time.sleep(0.02)


def wait_for_revision(model: ModelProcess, revision: int, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while state(model).vocabulary.revision != revision:
        assert time.monotonic() < deadline, model.log()
        time.sleep(0.02)


def metrics(service: ServiceProcess) -> dict[tuple[str, ...], float]:
    """Values by name of the sample and its state."""
    with urllib.request.urlopen(service.metrics_url, timeout=10) as page:
        text = page.read().decode()
    return {
        (sample.name, *([sample.labels["state"]] if "state" in sample.labels else [])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "vocab" in sample.name
    }


def health(address: str) -> tuple[str, dict[str, str]]:
    with grpc.insecure_channel(address) as channel:
        response, call = health_pb2_grpc.HealthStub(channel).Check.with_call(
            health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True
        )
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    said = {k: v for k, v in call.trailing_metadata() if k.startswith("lockstep-")}
    return status, {key.removeprefix("lockstep-vocabulary-"): said[key] for key in said}


def generate(
    model: ModelProcess, vocabulary: vocabulary_pb2.VocabularyRef | None = None
) -> vocabulary_pb2.VocabularyRef:
    request = model_service_pb2.GenerateRequest(
        prompt=ragged([5, 6]), generation_config={"max_new_tokens": 1}, vocabulary=vocabulary
    )
    return model.model.Generate(request, timeout=30).vocabulary


# --- What is said ---------------------------------------------------------------------------------


def test_a_model_that_follows_nobody_serves_its_base_and_says_so(tiny_model):
    said = following(tiny_model)
    assert said.state == info_pb.VOCABULARY_FOLLOW_STATE_BASE
    assert not said.HasField("silence")
    values = metrics(tiny_model.service)
    assert values["lockstep_model_vocabulary_follow_state", "base"] == 1
    assert ("lockstep_model_vocabulary_lag_revisions",) not in values
    status, beside = health(tiny_model.service.health_address)
    assert (status, beside["revision"], beside["follow-state"]) == ("SERVING", "0", "base")


def test_a_service_that_is_told_nothing_follows_the_usual_address_and_serves_meanwhile(
    tiny_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.delenv("LOCKSTEP_MODEL_TOKENIZER_ADDRESS")
    with counting_process(tiny_checkpoint, tmp_path) as model:
        (said,) = model.events("follows_tokenizer_service")
        assert (said["address"], said["at_start"]) == ("localhost:50051", "is not waited for")
        assert model.info.GetModelInfo(info_pb.GetModelInfoRequest()).vocabulary_followed


def test_a_service_that_is_told_to_follow_nobody_says_so(tiny_model):
    assert "--tokenizer-address" in tiny_model.events("follows_nobody")[0]["reason"]
    reference = vocabulary_pb2.VocabularyRef(tokenizer_id="tiny", revision=3)
    with pytest.raises(grpc.RpcError) as caught:
        generate(tiny_model, reference)
    answer = refusal(caught.value)
    assert answer.reason == "VOCABULARY_MISMATCH"
    assert answer.info.metadata["cause"] == "follows_nobody"
    assert "--tokenizer-address" in answer.message


def test_the_revision_is_in_info_health_and_metrics_of_both_services(tiny_checkpoint, tmp_path):
    with (
        running_tokenizer(tiny_checkpoint, tmp_path) as tokenizer,
        model_process(tiny_checkpoint, tmp_path, "--tokenizer-address", tokenizer.address) as model,
    ):
        tokenizer.add("<a>", "<b>")
        newest = tokenizer.add("<c>").vocabulary
        wait_for_revision(model, 2)
        wait_for(model, FOLLOWING)
        assert model.info.GetModelInfo(info_pb.GetModelInfoRequest()).vocabulary == newest
        for service in (model.service, tokenizer.process):
            status, said = health(service.health_address)
            assert status == "SERVING"
            assert said["revision"] == "2"
            assert said["size"] == str(newest.size)
            assert said["fingerprint"] == newest.fingerprint
            assert said["tokenizer-id"] == newest.tokenizer_id
        values = metrics(model.service)
        assert values[("lockstep_model_vocabulary_revision",)] == 2
        assert values[("lockstep_model_vocabulary_size",)] == newest.size
        assert values[("lockstep_model_vocabulary_lag_revisions",)] == 0
        assert values[("lockstep_model_vocabulary_follower_silence_seconds",)] < 10
        assert values["lockstep_model_vocabulary_follow_state", "following"] == 1
        values = metrics(tokenizer.process)
        assert values[("lockstep_tokenizer_vocab_revision",)] == 2
        assert values[("lockstep_tokenizer_vocab_size",)] == newest.size


def test_a_lost_tokenizer_service_is_reported_and_what_there_is_goes_on_being_served(
    tiny_checkpoint, tmp_path
):
    with running_tokenizer(tiny_checkpoint, tmp_path) as tokenizer:
        newest = tokenizer.add("<a>").vocabulary
        stack = model_process(tiny_checkpoint, tmp_path, "--tokenizer-address", tokenizer.address)
        model = stack.__enter__()
    try:
        wait_for(model, DISCONNECTED)
        assert "UNAVAILABLE" in following(model).reason
        assert generate(model) == newest
        status, said = health(model.service.health_address)
        assert (status, said["revision"], said["follow-state"]) == ("SERVING", "1", "disconnected")
        values = metrics(model.service)
        assert values[("lockstep_model_vocabulary_follower_connected",)] == 0
        assert values["lockstep_model_vocabulary_follow_state", "disconnected"] == 1
    finally:
        stack.__exit__(None, None, None)


def test_a_model_is_not_ready_before_it_has_what_there_was_at_first_contact(
    tiny_checkpoint, tmp_path
):
    with running_tokenizer(tiny_checkpoint, tmp_path) as tokenizer:
        for number in range(5):
            newest = tokenizer.add(f"<{number}>").vocabulary
        with (
            holding_proxy(tokenizer.address) as proxy,
            model_process(
                tiny_checkpoint, tmp_path, "--tokenizer-address", proxy.address, ready=False
            ) as model,
        ):
            proxy.hold()
            deadline = time.monotonic() + 30
            while not model.events("loading") or proxy.num_connections == 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.5)
            assert health(model.service.health_address)[0] == "NOT_SERVING"
            proxy.release()
            model.wait_for_health("SERVING")
            assert state(model).vocabulary == newest


def test_a_change_that_does_not_fit_the_model_is_refused_and_reported(tiny_checkpoint, tmp_path):
    bare = tmp_path / "bare"  # without `config.json`, so the tokenizer service knows no width
    bare.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_checkpoint / name, bare)
    with (
        running_tokenizer(bare, tmp_path) as tokenizer,
        model_process(tiny_checkpoint, tmp_path, "--tokenizer-address", tokenizer.address) as model,
    ):
        before = tokenizer.add("<fits>").vocabulary
        wait_for_revision(model, 1)
        tokenizer.add_tokens(with_values("<narrow>", np.zeros(3)))
        tokenizer.add("<after>")
        wait_for(model, CONFLICT)
        said = following(model)
        assert "3" in said.reason
        assert said.lag_revision_count in {1, 2}
        assert generate(model) == before
        values = metrics(model.service)
        assert values["lockstep_model_vocabulary_follow_state", "conflict"] == 1
        assert values[("lockstep_model_vocabulary_lag_revisions",)] >= 1
        assert len(model.events("vocabulary_conflict")) <= 2  # once, not with every attempt
        assert health(model.service.health_address)[1]["follow-state"] == "conflict"


def test_a_replica_that_meets_another_tokenizer_is_not_ready_until_its_own_is_back(
    tiny_checkpoint, tmp_path
):
    other = make_checkpoint(tmp_path / "other", vocab_size=VOCABULARY_SIZE - 8)
    for name in ("own", "others"):
        (tmp_path / name).mkdir()
    port = free_port()
    address = f"127.0.0.1:{port}"
    own = (tiny_checkpoint, tmp_path / "own", f"--port={port}")
    with ExitStack() as stack:
        with running_tokenizer(*own):
            model = stack.enter_context(
                model_process(tiny_checkpoint, tmp_path, "--tokenizer-address", address)
            )
            assert model.health() == "SERVING"
        with running_tokenizer(other, tmp_path / "others", f"--port={port}"):
            model.wait_for_health("NOT_SERVING")
            assert following(model).state == CONFLICT
            assert generate(model).revision == 0  # ids without a reference are its own still
        with running_tokenizer(*own):
            model.wait_for_health("SERVING")
            wait_for(model, FOLLOWING)


# --- TLS ------------------------------------------------------------------------------------------


@dataclass
class Certificates:
    """PEM files of one authority, as an operator puts them before both services."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.trust(self.authority)
        self.issue("server", "localhost")
        self.issue("client", "model.lockstep.test")
        roles = '["info", "vocabulary-admin"]'
        known = f'[model]\nroles = {roles}\ncertificates = ["model.lockstep.test"]\n'
        self._write("principals.toml", known.encode())

    def trust(self, *authorities: trustme.CA) -> None:
        self._write("ca.crt", b"".join(each.cert_pem.bytes() for each in authorities))

    def issue(self, name: str, host: str, authority: trustme.CA | None = None) -> None:
        issued = (authority or self.authority).issue_cert(host)
        self._write(f"{name}.key", issued.private_key_pem.bytes())
        self._write(f"{name}.crt", b"".join(each.bytes() for each in issued.cert_chain_pems))

    def _write(self, name: str, data: bytes) -> None:
        new = self.folder / f"{name}.new"
        new.write_bytes(data)
        os.replace(new, self.folder / name)

    @property
    def of_server(self) -> list[str]:
        """Flags of a tokenizer service that takes nobody without a certificate."""
        names = {
            "tls-certificate": "server.crt",
            "tls-key": "server.key",
            "tls-client-ca": "ca.crt",
            "principals": "principals.toml",
        }
        return [f"--{flag}={self.folder / name}" for flag, name in names.items()]

    @property
    def of_model(self) -> list[str]:
        """Flags of a model service that follows it."""
        names = {"ca": "ca.crt", "certificate": "client.crt", "key": "client.key"}
        return [f"--tokenizer-tls-{flag}={self.folder / name}" for flag, name in names.items()]

    def tokenizer(self, process: ServiceProcess) -> Tokenizer:
        """Stubs that show a certificate of their own."""
        credentials = grpc.ssl_channel_credentials(
            *((self.folder / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt"))
        )
        return Tokenizer(process, grpc.secure_channel(process.address, credentials))


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "certificates")


def test_the_vocabulary_is_followed_over_mutual_tls(tiny_checkpoint, certificates, tmp_path):
    with running_tokenizer(tiny_checkpoint, tmp_path, *certificates.of_server) as running:
        tokenizer = certificates.tokenizer(running.process)
        tokenizer.newest()
        address = ["--tokenizer-address", running.address]
        with (
            counting_process(tiny_checkpoint, tmp_path, *address, *certificates.of_model) as model,
            tokenizer.channel,
        ):
            tokenizer.add("<secret>")
            wait_for_revision(model, 1)
            wait_for(model, FOLLOWING)


@pytest.mark.parametrize("mistake", ["plain text", "no certificate", "strange", "other name"])
def test_without_the_right_certificates_nothing_is_followed(
    tiny_checkpoint, certificates, tmp_path, mistake
):
    flags = certificates.of_model
    if mistake == "plain text":
        flags = []
    elif mistake == "no certificate":
        flags = flags[:1]
    elif mistake == "strange":
        certificates.issue("client", "model.lockstep.test", trustme.CA())
    else:
        flags = [*flags, "--tokenizer-tls-name=other.lockstep.test"]
    with (
        running_tokenizer(tiny_checkpoint, tmp_path, *certificates.of_server) as running,
        counting_process(
            tiny_checkpoint, tmp_path, "--tokenizer-address", running.address, *flags, ready=False
        ) as model,
    ):
        deadline = time.monotonic() + 40
        while not (events := model.events("tokenizer_unreachable")):
            assert time.monotonic() < deadline, model.log()
            time.sleep(0.1)
        assert events[0]["reason"]
        assert health(model.service.health_address) == (
            "NOT_SERVING",
            {"follow-state": "disconnected"},
        )


def test_a_server_whose_certificate_has_another_name_can_be_named(
    tiny_checkpoint, certificates, tmp_path
):
    certificates.issue("server", "tokenizer.lockstep.test")
    flags = [*certificates.of_model, "--tokenizer-tls-name=tokenizer.lockstep.test"]
    with (
        running_tokenizer(tiny_checkpoint, tmp_path, *certificates.of_server) as running,
        counting_process(
            tiny_checkpoint, tmp_path, "--tokenizer-address", running.address, *flags
        ) as model,
    ):
        wait_for(model, FOLLOWING)


def test_certificates_of_a_new_authority_are_used_without_a_restart(
    tiny_checkpoint, certificates, tmp_path
):
    with (
        running_tokenizer(tiny_checkpoint, tmp_path, *certificates.of_server) as running,
        holding_proxy(running.address) as proxy,
        counting_process(
            tiny_checkpoint,
            tmp_path,
            "--tokenizer-address",
            proxy.address,
            *certificates.of_model,
        ) as model,
    ):
        renewed = trustme.CA()
        certificates.trust(renewed)
        certificates.issue("server", "localhost", renewed)
        certificates.issue("client", "model.lockstep.test", renewed)
        proxy.cut()
        tokenizer = certificates.tokenizer(running.process)
        with tokenizer.channel:
            tokenizer.newest()  # the server has the new ones, and takes no others
            tokenizer.add("<renewed>")
            wait_for_revision(model, 1)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--tokenizer-tls-certificate={client.crt}"], "go together"),
        (["--tokenizer-tls-name=x"], "need --tokenizer-tls-ca"),
        (["--tokenizer-tls-ca={ca.crt}"], "needs --tokenizer-address"),
        (
            [
                "--tokenizer-address=localhost:1",
                "--tokenizer-tls-ca={ca.crt}",
                "--tokenizer-tls-certificate={client.crt}",
                "--tokenizer-tls-key={server.key}",
            ],
            "cannot_start",
        ),
    ],
)
def test_tls_files_that_do_not_fit_together_stop_the_start(
    tiny_checkpoint, certificates, tmp_path, flags, problem
):
    files = [re.sub(r"\{(.*)\}", lambda m: str(certificates.folder / m[1]), each) for each in flags]
    ended = subprocess.run(
        [sys.executable, "-m", "model_service", "--model", str(tiny_checkpoint), *files],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode in {1, 2}
    assert problem in ended.stderr
