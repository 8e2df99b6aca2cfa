"""The names of replicas in those of sessions, and the addresses that follow from them."""

import base64

import pytest

from model_service.front.sessions.replica import Replica, default_name, public_part
from rpc.errors import SessionNotFound, SessionOnOtherReplica

PATTERN = "{pod}.model-headless.{namespace}.svc:50052"


def pod(name: str) -> Replica:
    return Replica(f"prod/{name}", PATTERN)


def forged(name: str) -> str:
    tag = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
    return f"{tag}.AAAAAAAAAAAAAAAAAAAAAA"


def test_a_pod_is_named_after_itself_and_another_process_after_its_address():
    pods = {"POD_NAMESPACE": "prod", "POD_NAME": "model-0"}
    assert default_name(pods, "host", 1) == "prod/model-0"
    assert default_name({"POD_NAME": "model-0"}, "host", 1) == "host:1"


def test_names_of_sessions_cannot_be_guessed_and_say_whose_they_are():
    names = {pod("model-0").new_session_id() for _ in range(1000)}
    assert len(names) == 1000
    assert {len(name.partition(".")[2]) for name in names} == {22}
    for name in names:
        assert isinstance(pod("model-0").absence(name), SessionNotFound)
        assert isinstance(pod("model-1").absence(name), SessionOnOtherReplica)


def test_the_longest_name_of_a_replica_leaves_a_session_a_name_that_requests_may_have():
    assert len(Replica("n" * 63 + "/" + "p" * 63).new_session_id()) <= 256


def test_the_token_is_what_llm_d_reads():
    assert base64.b64decode(pod("model-0").token) == b"prod/model-0"


def test_the_other_replica_is_reached_by_the_pattern():
    error = pod("model-0").absence(pod("model-1").new_session_id())
    assert error.metadata["replica"] == "prod/model-1"
    assert error.metadata["address"] == "model-1.model-headless.prod.svc:50052"
    assert "model-1.model-headless.prod.svc:50052" in str(error)


@pytest.mark.parametrize(
    "name",
    [
        "prod/evil.example.com",
        "prod/x/../y",
        "prod/model-1:1/",
        "other/model-1",
        "prod/{pod}",
        "prod/-",
        "evil.example.com:1",
        "model-1",
    ],
)
def test_no_name_that_a_caller_makes_up_leads_out_of_the_namespace(name: str):
    error = pod("model-0").absence(forged(name))
    assert isinstance(error, SessionOnOtherReplica)
    assert error.metadata["address"] == ""


@pytest.mark.parametrize("session_id", ["", "none", ".", "!.x", "é.x", "cHJvZA==.x", "/w.x"])
def test_what_names_no_replica_is_not_found_anywhere(session_id: str):
    assert isinstance(pod("model-0").absence(session_id), SessionNotFound)


def test_a_replica_named_by_its_address_is_reached_there():
    one, two = Replica("one:50052"), Replica("two.local:50053")
    assert one.absence(two.new_session_id()).metadata["address"] == "two.local:50053"


def test_what_is_written_of_a_name_is_a_part_of_its_secret():
    name = pod("model-0").new_session_id()
    assert public_part(name) == name.partition(".")[2][:8]
