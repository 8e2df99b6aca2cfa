"""Two replicas of each service behind Envoy, with the configuration that is shipped."""

import base64
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml
from lockstep.v1 import model_admin_service_pb2
from lockstep.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub

from lockstep_client import Lockstep
from tests.integration.envoy import envoy
from tests.integration.model_process import counting_process
from tests.services import ROOT, ServiceProcess, running_process

PREFIX = [5, 6, 7, 8, 9, 10, 11, 12] * 8


@dataclass(frozen=True)
class Fleet:
    """Both services behind Envoy.

    Attributes:
        address: where Envoy serves them.
        tokenizers, models: the replicas.
    """

    address: str
    tokenizers: list[ServiceProcess]
    models: list[ServiceProcess]

    def client(self, **options: object) -> Lockstep:
        """Returns a client that gets everywhere through Envoy alone, to be closed."""
        return Lockstep(tokenizer=self.address, model=self.address, follow=False, **options)


@pytest.fixture(scope="module")
def fleet(tiny_checkpoint: Path, tmp_path_factory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("envoy")
    with ExitStack() as running:
        tokenizers, models = [], []
        for name in ("one", "two"):
            home = folder / name
            home.mkdir()
            flags = [f"--model={tiny_checkpoint}", f"--store=sqlite:///{home / 'vocabulary.db'}"]
            process = running_process("tokenizer_service", *flags, folder=home)
            tokenizers.append(running.enter_context(process))
            model = counting_process(tiny_checkpoint, home, f"--replica=prod/model-{name}")
            models.append(running.enter_context(model).service)
        address = running.enter_context(envoy(folder, tokenizers, models))
        yield Fleet(address, tokenizers, models)


def test_texts_become_ids_at_both_tokenizers(fleet: Fleet):
    with fleet.client() as ls:
        batches = [ls.tokenizer.encode("a b c") for _ in range(8)]
    assert len({batch.vocabulary.fingerprint for batch in batches}) == 1
    assert all(each.handled("Encode", "OK") for each in fleet.tokenizers)


def test_sessions_stay_with_their_replicas_through_the_gateway_alone(fleet: Fleet):
    with fleet.client() as ls, ExitStack() as running:
        sessions = [ls.model.open_session([[5]]) for _ in range(12)]
        for session in sessions:
            running.callback(session.close)
        for turn in range(3):
            for session in sessions:
                result = session.step([[6 + turn]])
                assert result.rows[0][0].logits.argmax() == 7 + turn
        places = {session.session_token for session in sessions}
        ours = {_port(model) for model in fleet.models}
        assert {base64.b64decode(token).decode().rpartition(":")[2] for token in places} == ours
        with sessions[0].step_stream() as steps:
            assert steps.step([[9]]).rows[0][0].logits.argmax() == 10
        with sessions[1].fork() as fork:
            assert fork.generate(max_new_tokens=2).sequences == [[9, 10]]
    assert not any(model.handled("Step", "FAILED_PRECONDITION") for model in fleet.models)


def test_a_session_is_handed_to_another_process_with_its_token(fleet: Fleet):
    with fleet.client() as ls, fleet.client() as other, ls.model.open_session([[5]]) as session:
        for _ in range(4):
            found = other.model.get_session(session.session_id, session_token=session.session_token)
            assert found.token_ids() == [[5]]


def test_what_a_generation_leaves_behind_is_found_through_the_gateway(fleet: Fleet):
    with fleet.client() as ls:
        for _ in range(6):
            kept = ls.model.generate([[5]], max_new_tokens=2, keep_session=True).session_id
            with ls.model.get_session(kept) as session:
                assert session.token_ids() == [[5, 6, 7]]


def test_prompts_that_begin_alike_go_to_one_replica_and_others_elsewhere(fleet: Fleet):
    def served(prompts: list[list[int]], **options: bool) -> list[int]:
        before = [model.handled("GenerateStream", "OK") for model in fleet.models]
        with fleet.client(**options) as ls:
            for prompt in prompts:
                ls.model.generate([prompt], max_new_tokens=1)
        after = [model.handled("GenerateStream", "OK") for model in fleet.models]
        return [int(b - a) for a, b in zip(before, after, strict=True)]

    assert sorted(served([[*PREFIX, 5 + turn] for turn in range(8)])) == [0, 8]
    assert min(served([[5 + turn, *PREFIX] for turn in range(16)])) > 0
    assert min(served([[*PREFIX, 5] for _ in range(16)], prefix_routing=False)) > 0


def test_administration_has_no_way_through(fleet: Fleet):
    with grpc.insecure_channel(fleet.address) as channel:
        stub = ModelAdminServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Drain(model_admin_service_pb2.DrainRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_endpoint_picker_reads_metrics_that_a_replica_has(fleet: Fleet):
    path = ROOT / "deploy" / "envoy" / "endpoint-picker.yaml"
    plugins = yaml.safe_load(path.read_text())["plugins"]
    (extractor,) = (each for each in plugins if each["type"] == "core-metrics-extractor")
    (engine,) = extractor["parameters"]["engineConfigs"]
    with urllib.request.urlopen(fleet.models[0].metrics_url, timeout=10) as page:
        present = page.read().decode()
    for name in ("queuedRequestsSpec", "runningRequestsSpec", "kvUsageSpec"):
        assert f"# TYPE {engine[name]} gauge" in present


def _port(service: ServiceProcess) -> str:
    return service.address.rpartition(":")[2]
