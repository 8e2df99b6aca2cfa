"""Which replicas the calls of a session may follow it to."""

import pytest

from lockstep_client._transport.endpoint import Endpoint, Tls
from lockstep_client.exceptions import WrongType

HEADLESS = "dns:///model-headless.prod.svc:50052"
POD = "model-1.model-headless.prod.svc:50052"


def endpoint(address: str = HEADLESS, **options) -> Endpoint:
    return Endpoint("model", address, **options)


@pytest.mark.parametrize(
    ("address", "replica"),
    [
        (HEADLESS, POD),
        ("model-headless.prod.svc:50052", POD.upper()),
        ("localhost:1", "127.0.0.1:2"),
        ("host:1", "host:2"),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", "10.0.0.2:1"),
        ("[::1]:1", "localhost:1"),
    ],
)
def test_in_plain_text_the_same_host_and_names_below_it_are_followed(address, replica):
    assert endpoint(address).replica(replica).address == replica


@pytest.mark.parametrize(
    "replica",
    [
        "model-1.model-headless.test.svc:50052",
        "evilmodel-headless.prod.svc:50052",
        "model-headless.prod.svc.evil.example:50052",
        "169.254.169.254:80",
        "localhost:50052",
        "unix:/run/other",
        "ipv4:10.0.0.1:1",
        "https://model-1.model-headless.prod.svc:50052",
        "",
        "model-headless.prod.svc",
    ],
)
def test_in_plain_text_no_other_host_is_followed(replica):
    assert endpoint().replica(replica) is None


def test_with_tls_a_replica_must_prove_the_name_that_was_expected_of_the_service():
    found = endpoint(tls=Tls()).replica("10.0.0.9:50052")
    assert (found.address, found.tls.server_name) == ("10.0.0.9:50052", "model-headless.prod.svc")
    found = endpoint(tls=Tls(server_name="model")).replica(POD)
    assert found.tls.server_name == "model"
    assert ("grpc.ssl_target_name_override", "model") in found.options(streams=False)


def test_hosts_that_are_listed_are_followed_and_no_other():
    listed = endpoint("gateway:443", follow=["*.model-headless.prod.svc"])
    assert listed.replica(POD).address == POD
    assert listed.replica("gateway:1") is None


def test_nothing_is_followed_where_that_is_forbidden():
    assert endpoint(follow=False).replica(POD) is None


@pytest.mark.parametrize("follow", ["*", 1, None, [1]])
def test_what_may_be_followed_is_yes_or_no_or_a_list(follow):
    with pytest.raises(WrongType, match="follow is True, False, or a list of hosts"):
        endpoint(follow=follow)
