"""Two model replicas: a session stays with the one that has it, wherever its calls arrive."""

import base64
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client import AsyncLockstep, Lockstep
from lockstep_client.exceptions import (
    ConnectionFailed,
    SessionNotFound,
    SessionOnOtherReplica,
)
from tests.integration.balancer import balancer
from tests.integration.model_process import ModelProcess, counting_process, ragged, refusal
from tests.ports import free_port

NOWHERE = "localhost:1"
AGE_S = 1.0
"""A connection is this old when its server asks for a new one."""


@dataclass(frozen=True)
class Replica:
    """A replica whose name is its address."""

    name: str
    process: ModelProcess


@pytest.fixture(scope="module")
def replicas(tiny_checkpoint: Path, tmp_path_factory) -> Iterator[list[Replica]]:
    """Two of them, which end connections after `AGE_S`."""
    with ExitStack() as running:
        found = []
        for name in ("one", "two"):
            address = f"127.0.0.1:{free_port()}"
            flags = [
                f"--port={address.rpartition(':')[2]}",
                f"--replica={address}",
                f"--max-connection-age-s={AGE_S}",
            ]
            folder = tmp_path_factory.mktemp(name)
            process = running.enter_context(counting_process(tiny_checkpoint, folder, *flags))
            found.append(Replica(address, process))
        yield found


def _opened(replica: Replica, *metadata: tuple[str, str]) -> tuple[str, dict[str, str]]:
    """Opens a session, and returns its name and what the answer says of its replica."""
    request = pb.OpenSessionRequest(prompt=ragged([5]))
    response, call = replica.process.sessions.OpenSession.with_call(request, metadata=metadata)
    return response.session_id, dict(call.initial_metadata())


def test_another_replica_says_which_one_has_the_session(replicas: list[Replica]):
    one, two = replicas
    session_id, _ = _opened(one)
    for method, request in (
        (two.process.sessions.Step, pb.StepRequest(session_id=session_id)),
        (two.process.sessions.GetSession, pb.GetSessionRequest(session_id=session_id)),
        (two.process.sessions.CloseSession, pb.CloseSessionRequest(session_id=session_id)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            method(request)
        refused = refusal(caught.value)
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "SESSION_ON_OTHER_REPLICA",
        )
        assert dict(refused.info.metadata) == {
            "sessionId": session_id,
            "replica": one.name,
            "address": one.name,
        }
    one.process.sessions.CloseSession(pb.CloseSessionRequest(session_id=session_id))


def test_a_session_that_is_gone_is_not_elsewhere(replicas: list[Replica]):
    session_id, _ = _opened(replicas[0])
    request = pb.CloseSessionRequest(session_id=session_id)
    replicas[0].process.sessions.CloseSession(request)
    with pytest.raises(grpc.RpcError) as caught:
        replicas[0].process.sessions.CloseSession(request)
    assert refusal(caught.value).reason == "SESSION_NOT_FOUND"


def test_answers_name_their_replica_to_callers_that_know_none(replicas: list[Replica]):
    for replica in replicas:
        session_id, told = _opened(replica)
        assert base64.b64decode(told["x-session-token"]).decode() == replica.name
        again, told = _opened(replica, ("x-session-token", "of a gateway"))
        assert "x-session-token" not in told
        for each in (session_id, again):
            replica.process.sessions.CloseSession(pb.CloseSessionRequest(session_id=each))


def test_a_refused_call_brings_no_token(replicas: list[Replica]):
    """What has brought initial metadata is not repeated by gRPC's own retries."""
    with pytest.raises(grpc.RpcError) as caught:
        replicas[0].process.sessions.GetSession(pb.GetSessionRequest(session_id="none"))
    assert "x-session-token" not in dict(caught.value.initial_metadata())


def test_a_session_outlives_the_connections_it_was_balanced_over(replicas: list[Replica]):
    with (
        balancer(*(replica.name for replica in replicas)) as service,
        Lockstep(tokenizer=NOWHERE, model=service.address) as ls,
        ls.model.open_session([[5]]) as session,
    ):
        until = time.monotonic() + 4 * AGE_S
        while time.monotonic() < until:
            session.step([[7]])
            time.sleep(0.05)
        assert session.token_ids()[0] == [5] + [7] * (session.position[0] - 1)
        assert service.num_connections >= 2


def test_every_kind_of_call_follows_its_session(replicas: list[Replica]):
    one, two = replicas
    with (
        Lockstep(tokenizer=NOWHERE, model=one.name) as there,
        Lockstep(tokenizer=NOWHERE, model=two.name) as here,
        there.model.open_session([[5]]) as session,
    ):

        def found():
            return here.model.get_session(session.session_id)

        assert found().step([[6]]).rows[0][0].logits.argmax() == 7
        with found().step_stream() as steps:
            assert steps.step([[7]]).rows[0][0].logits.argmax() == 8
        assert found().generate(max_new_tokens=2).sequences == [[8, 9]]
        with found().stream(max_new_tokens=1) as stream:
            assert [delta.token_ids for delta in stream] == [(10,)]
        with found().fork() as fork:
            assert fork.step([[11]]).rows[0][0].logits.argmax() == 12
        found().truncate(2)
        assert found().token_ids() == [[5, 6]]
        found().close()
        with pytest.raises(SessionNotFound):
            found()


async def test_asyncio_calls_follow_their_session(replicas: list[Replica]):
    one, two = replicas
    async with (
        AsyncLockstep(tokenizer=NOWHERE, model=one.name) as there,
        AsyncLockstep(tokenizer=NOWHERE, model=two.name) as here,
        await there.model.open_session([[5]]) as session,
    ):

        async def found():
            return await here.model.get_session(session.session_id)

        result = await (await found()).step([[6]])
        assert result.rows[0][0].logits.argmax() == 7
        async with (await found()).step_stream() as steps:
            await steps.step([[7]])
        assert (await (await found()).generate(max_new_tokens=2)).sequences == [[8, 9]]
        stream = (await found()).stream(max_new_tokens=1)
        assert [delta.token_ids async for delta in stream] == [(10,)]


@pytest.mark.parametrize("follow", [False, [], ["*.example.com"]])
def test_a_caller_that_may_not_follow_is_told_where_its_session_is(replicas, follow):
    one, two = replicas
    session_id, _ = _opened(one)
    with Lockstep(tokenizer=NOWHERE, model=two.name, follow=follow) as ls:
        with pytest.raises(SessionOnOtherReplica) as caught:
            ls.model.get_session(session_id)
        assert caught.value.metadata["address"] == one.name
    one.process.sessions.CloseSession(pb.CloseSessionRequest(session_id=session_id))


def test_a_session_goes_on_elsewhere_when_its_replica_is_gone(
    tiny_checkpoint: Path, tmp_path: Path, replicas: list[Replica]
):
    survivor = replicas[0]
    with ExitStack() as running:
        address = f"127.0.0.1:{free_port()}"
        flags = [f"--port={address.rpartition(':')[2]}", f"--replica={address}"]
        doomed = running.enter_context(counting_process(tiny_checkpoint, tmp_path, *flags))
        with (
            balancer(address, survivor.name) as service,
            Lockstep(tokenizer=NOWHERE, model=service.address) as ls,
        ):
            kept = ls.model.open_session([[5]], reopen=True)
            lost = ls.model.open_session([[5]])
            for session in (kept, lost):
                session.step([[6]])
            doomed.process.kill()
            doomed.process.wait()
            assert kept.step([[7]]).rows[0][0].logits.argmax() == 8
            with kept.step_stream() as steps:
                steps.step([[8]])
            assert kept.token_ids() == [[5, 6, 7, 8]]
            with pytest.raises((ConnectionFailed, SessionOnOtherReplica)):
                lost.step([[7]])
            lost.reopen()
            lost.step([[7]])
            assert lost.token_ids() == [[5, 6, 7]]
            for session in (kept, lost):
                session.close()


def test_calls_without_a_session_go_to_all_replicas_and_sessions_to_their_own(
    replicas: list[Replica],
):
    addresses = ",".join(replica.name for replica in replicas)
    before = [replica.process.service.handled("GenerateStream", "OK") for replica in replicas]
    with Lockstep(tokenizer=NOWHERE, model=f"ipv4:{addresses}") as ls:
        for _ in range(20):
            assert ls.model.generate([[5]], max_new_tokens=1).sequences == [[6]]
        sessions = [ls.model.open_session([[5]]) for _ in range(10)]
        for session in sessions:
            session.step([[6]])
            assert session.step([[7]]).rows[0][0].logits.argmax() == 8
        names = {base64.b64decode(session.session_token).decode() for session in sessions}
        assert names == {replica.name for replica in replicas}
        for session in sessions:
            session.close()
    for replica, count in zip(replicas, before, strict=True):
        assert replica.process.service.handled("GenerateStream", "OK") > count
