"""The TypeScript client, built from the repository, against the real services."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lockstep_client import Lockstep
from tests.services import ROOT, Services

SOURCE = ROOT / "client" / "node"
PROBE = Path(__file__).with_name("node_client_probe.mjs")
TEXTS = ["The capital of France is", "Grüße aus 東京 🙂"]
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None, reason="needs Node.js and npm"
)


def _run(command: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if result.returncode and any(word in result.stderr for word in UNREACHABLE):
        pytest.skip("needs the package registry of npm")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, installed from its lock and compiled, in a folder of its own."""
    folder = tmp_path_factory.mktemp("node") / "client"
    ignored = shutil.ignore_patterns("node_modules", "dist", "protos", "schema")
    shutil.copytree(SOURCE, folder, ignore=ignored)
    _run(["npm", "ci"], folder)
    _run(["npm", "run", "build"], folder, LOCKSTEP_PROTOS=str(ROOT / "protos"))
    return folder


@pytest.fixture(scope="module")
def answer(built: Path, services: Services) -> dict[str, Any]:
    """What the probe got from the services."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # it listens and answers nobody
        services.model.cancelling("GenerateStream"),  # the stream that the probe leaves
    ):
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = ["node", str(PROBE), str(built)]
        return json.loads(_run(command, built, **services.environment, SILENT=address))


@pytest.fixture
def client(services: Services):
    with services.client() as client:
        yield client


def test_texts_become_the_ids_that_the_python_client_gets(answer, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    assert answer["batch"]["tokenIds"] == batch.token_ids
    assert answer["batch"]["vocabulary"]["fingerprint"] == batch.vocabulary.fingerprint
    assert answer["decoded"] == TEXTS


def test_tokens_are_those_that_the_python_client_gets(answer, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    greedy = client.model.generate(batch, max_new_tokens=12, do_sample=False, eos_token_id=[])
    assert answer["greedy"] == greedy.sequences
    sampled = client.model.generate(
        batch, max_new_tokens=12, do_sample=True, temperature=1.5, top_k=0, seed=11
    )
    assert answer["sampled"] == sampled.sequences
    assert answer["seeds"] == [str(seed) for seed in sampled.seeds]


def test_a_stream_gives_what_the_whole_answer_has(answer):
    assert answer["streamed"]["ids"] == answer["greedy"]
    assert answer["streamed"]["finishReasons"] == ["FINISH_REASON_MAX_NEW_TOKENS"] * len(TEXTS)


def test_a_refused_call_says_why_for_programs_and_for_people(answer):
    refused = answer["unknownId"]
    assert (refused["name"], refused["code"]) == ("LockstepError", "INVALID_ARGUMENT")
    assert refused["reason"] == "TOKEN_ID_OUT_OF_RANGE"
    assert refused["metadata"]["tokenId"] == "99999"
    assert "99999" in refused["message"]
    for call in ("emptyPrompt", "emptyPromptStreamed"):
        assert answer[call]["reason"] == "INVALID_FIELD"


def test_ids_that_are_no_whole_numbers_are_refused(answer):
    failures = [*answer["noIds"], *answer["noIdsOfConfig"], [answer["noKey"]]]
    for refused in (failure for pair in failures for failure in pair):
        assert refused["name"] == "TypeError"
        assert "whole numbers" in refused["message"]


def test_a_service_that_is_away_is_unavailable_without_a_reason(answer):
    assert (answer["nobody"]["code"], answer["nobody"]["reason"]) == ("UNAVAILABLE", "")


def test_a_stream_ends_at_its_deadline_where_nobody_answers(answer):
    assert answer["silent"]["name"] == "LockstepError"
    assert answer["silent"]["code"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("call", ["closed", "closedStreamed"])
def test_a_client_that_is_closed_says_so(answer, call):
    assert (answer[call]["name"], answer[call]["code"]) == ("LockstepError", "CANCELLED")


def test_the_example_prints_a_continuation(built: Path, services: Services, client: Lockstep):
    prompt = "Once upon a time"
    printed = _run(["npm", "run", "--silent", "example", prompt], built, **services.environment)
    expected = client.generate(prompt, max_new_tokens=16, do_sample=False)
    assert printed == expected.text + "\n"
