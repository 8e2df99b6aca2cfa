"""Sessions, on one replica and on several."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lockstep_client import Lockstep
from tests.integration.balancer import balancer
from tests.integration.model_process import counting_process
from tests.integration.node.package import needs_node, probe, start
from tests.integration.test_model_replicas import PATIENT, Leaving, Replica
from tests.ports import free_port
from tests.services import Services

pytestmark = needs_node


@pytest.fixture(scope="module")
def sessions(built: Path, services: Services) -> dict[str, Any]:
    return probe("sessions", built, **services.environment)


def test_tokens_that_the_caller_chooses_are_those_that_the_server_would(sessions, client: Lockstep):
    prompts = [[5, 6, 7], [8, 9]]
    expected = client.model.generate(prompts, max_new_tokens=6, do_sample=False, eos_token_id=[])
    assert sessions["stepped"]["chosen"] == expected.sequences
    assert sessions["stepped"]["position"] == [9, 8]
    rows = [[*prompt, *new] for prompt, new in zip(prompts, expected.sequences, strict=True)]
    assert sessions["stepped"]["tokenIds"] == rows
    assert sessions["overStream"] == expected.sequences


def test_rows_are_cut_copied_selected_and_left_alone(sessions):
    first, second = sessions["stepped"]["tokenIds"]
    assert sessions["unknown"] is None
    assert sessions["before"] == [9, 8]
    assert sessions["copied"] == {"position": [8, 8, 9], "tokenIds": [second, second, first]}
    assert sessions["selected"] == {"position": [9], "tokenIds": [first]}
    assert sessions["alone"] == [9, 9]


def test_a_generation_of_a_session_that_was_left_is_undone(sessions):
    (row,) = sessions["generated"]["sequences"]
    assert len(row) == 4
    assert sessions["generated"]["after"] == [13]
    assert "ask for its tokenIds()" in sessions["generated"]["full"]["message"]
    assert sessions["undone"] == [14]


def test_a_session_is_found_again_and_holds_nothing_when_it_is_closed(sessions):
    assert len(sessions["sampled"]["ids"]) == 1
    assert sessions["sampled"]["position"] == sessions["found"] == [16]
    assert sessions["continued"] == [5]
    assert sessions["closedTwice"] is None
    assert sessions["gone"]["reason"] == "SESSION_NOT_FOUND"


def test_sessions_are_followed_to_their_replica_and_opened_again(
    built: Path, tiny_checkpoint: Path, tmp_path: Path
):
    with ExitStack() as running:
        names = []
        for folder in (tmp_path / "one", tmp_path / "two"):
            folder.mkdir()
            names.append(f"127.0.0.1:{free_port()}")
            flags = [f"--port={names[-1].rpartition(':')[2]}", f"--replica={names[-1]}"]
            running.enter_context(counting_process(tiny_checkpoint, folder, *flags))
        seen = probe("replicas", built, ONE=names[0], TWO=names[1])
    assert seen["token"] == names[0]
    assert seen["stepped"] == [7, 8, 12]
    assert (seen["sequences"], seen["streamed"]) == ([[8, 9]], [[10]])
    assert seen["forbidden"]["reason"] == "SESSION_ON_OTHER_REPLICA"
    assert seen["forbidden"]["metadata"]["address"] == names[0]
    assert seen["reopened"] == [8, [8, 9], [10], 8]
    assert seen["tokenIds"] == [[5, 6, 7, 8, 9, 10]]
    assert seen["sameSeeds"]
    assert seen["gone"]["reason"] == "SESSION_NOT_FOUND"


def test_a_session_that_is_opened_again_waits_for_its_service(
    built: Path, tiny_checkpoint: Path, tmp_path: Path
):
    address = f"127.0.0.1:{free_port()}"
    flags = [f"--port={address.rpartition(':')[2]}"]
    with counting_process(tiny_checkpoint, tmp_path, *flags):
        child = start("restart", built, LOCKSTEP_MODEL=address)
        assert child.stdout.readline() == "open\n"
    with child:
        child.stdin.write("\n")
        child.stdin.flush()
        time.sleep(1.5)  # longer than calls are repeated
        with counting_process(tiny_checkpoint, tmp_path, *flags):
            printed, _ = child.communicate(timeout=120)
    seen = json.loads(printed)
    assert seen["late"]["name"] == "ConnectionFailed"
    assert seen["tokenIds"] == [[5, 6, 7]]
    assert seen["shape"][0] == 1


def test_a_client_leaves_a_replica_that_shuts_down_and_sessions_move_in_time(
    built: Path, tiny_checkpoint: Path, tmp_path: Path
):
    names, replicas = [], []
    with ExitStack() as running:
        for folder in (tmp_path / "leaver", tmp_path / "stayer"):
            folder.mkdir()
            names.append(f"127.0.0.1:{free_port()}")
            flags = [f"--port={names[-1].rpartition(':')[2]}", f"--replica={names[-1]}", PATIENT]
            process = counting_process(tiny_checkpoint, folder, *flags, step_s=0.05)
            replicas.append(Replica(names[-1], running.enter_context(process)))
        leaving = Leaving(running.enter_context(balancer(names[0])), *replicas)
        child = running.enter_context(
            start("leaving", built, LOCKSTEP_MODEL=leaving.service.address)
        )
        assert child.stdout.readline() == "open\n"
        leaving.begin()
        printed, _ = child.communicate("\n", timeout=120)
        assert leaving.leaver.process.process.wait(30) == 0
    seen = json.loads(printed)
    assert seen["before"] is None
    assert seen["generated"] == [[[6]]] * 3
    assert seen["streamed"] == 200
    assert all(0 < drain_s <= 60 for drain_s in seen["told"])
    assert seen["moved"] == [9, 9]
    assert seen["places"] == [names[1], names[1], names[0]]
    assert seen["tokenIds"] == [[[5, 6, 7, 8]], [[5, 6, 7, 8]], [[5, 6, 7]]]
    assert seen["failures"] == [None] * 3
