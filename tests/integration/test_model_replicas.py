"""Two model replicas: a session stays with the one that has it, wherever its calls arrive."""

import asyncio
import base64
import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
import trustme
from lockstep.v1 import logits_session_service_pb2 as pb

from lockstep_client import AsyncLockstep, Lockstep, Tls
from lockstep_client.exceptions import (
    ConnectionFailed,
    SessionNotFound,
    SessionOnOtherReplica,
)
from tests.integration.balancer import Balancer, balancer
from tests.integration.model_process import ModelProcess, counting_process, ragged, refusal
from tests.ports import free_port

NOWHERE = "localhost:1"
AGE_S = 1.0
"""A connection is this old when its server asks for a new one."""
DIALED_AGAIN_S = 1.1
"""A client whose connection is older dials again where its replica shuts down."""
PATIENT = "--session-drain-silence-s=20"
"""On a busy machine a session may be silent for seconds."""
AUTHORITY = trustme.CA()


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


class Leaving:
    """A replica that shuts down, and another behind the same address that serves.

    Attributes:
        service: the address of both, whose new connections go to the first until it leaves.
        leaver, stayer: the two.
    """

    def __init__(self, service: Balancer, leaver: Replica, stayer: Replica) -> None:
        self.service = service
        self.leaver = leaver
        self.stayer = stayer

    def begin(self) -> None:
        """Sends one away, and waits until no new connection leads there."""
        self.leaver.process.process.terminate()
        self.leaver.process.wait_for_health("NOT_SERVING")
        self.service.retarget(self.stayer.name)


@pytest.fixture
def leaving(tiny_checkpoint: Path, tmp_path: Path, replicas: list[Replica]) -> Iterator[Leaving]:
    name = f"127.0.0.1:{free_port()}"
    flags = [f"--port={name.rpartition(':')[2]}", f"--replica={name}", PATIENT]
    with (
        counting_process(tiny_checkpoint, tmp_path, *flags, step_s=0.05) as process,
        balancer(name) as service,
    ):
        yield Leaving(service, Replica(name, process), replicas[0])


def test_a_client_with_one_connection_leaves_a_replica_that_shuts_down(leaving: Leaving):
    with Lockstep(tokenizer=NOWHERE, model=leaving.service.address) as ls:
        with ls.model.stream([[5]], max_new_tokens=200, eos_token_id=[]) as stream:
            begun = next(stream)
            time.sleep(DIALED_AGAIN_S)
            leaving.begin()
            for _ in range(3):
                assert ls.model.generate([[5]], max_new_tokens=1).sequences == [[6]]
            assert leaving.leaver.process.process.poll() is None, "its stream still runs"
            assert sum(len(delta.token_ids) for delta in (begun, *stream)) == 200
        assert leaving.leaver.process.process.wait(30) == 0
        gc.collect()
        deadline = time.monotonic() + 10
        while leaving.service.num_open > 2:  # what nothing uses any more is closed
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ls.model.generate([[5]], max_new_tokens=1).sequences == [[6]]


async def test_asyncio_clients_leave_it_too(leaving: Leaving):
    async with AsyncLockstep(tokenizer=NOWHERE, model=leaving.service.address) as ls:
        stream = ls.model.stream([[5]], max_new_tokens=200, eos_token_id=[])
        begun = await anext(stream)
        await asyncio.sleep(DIALED_AGAIN_S)
        await asyncio.to_thread(leaving.begin)
        for _ in range(3):
            assert (await ls.model.generate([[5]], max_new_tokens=1)).sequences == [[6]]
        assert leaving.leaver.process.process.poll() is None
        deltas = [begun, *[delta async for delta in stream]]
        assert sum(len(delta.token_ids) for delta in deltas) == 200
        assert await asyncio.to_thread(leaving.leaver.process.process.wait, 30) == 0


def test_a_session_goes_on_where_it_is_while_its_replica_shuts_down(leaving: Leaving):
    with Lockstep(tokenizer=NOWHERE, model=leaving.service.address) as ls:
        session = ls.model.open_session([[5]])
        assert session.step([[6]]).drain_s is None
        time.sleep(DIALED_AGAIN_S)
        leaving.begin()
        assert ls.model.generate([[5]], max_new_tokens=1).sequences == [[6]]
        result = session.step([[7]])
        assert 0 < result.drain_s <= 60
        assert session.token_ids() == [[5, 6, 7]]
        session.close()
        assert leaving.leaver.process.process.wait(30) == 0


@pytest.mark.parametrize("streamed", [False, True], ids=["step", "step_stream"])
def test_a_session_moves_before_its_replica_has_shut_down(leaving: Leaving, streamed: bool):
    with (
        Lockstep(tokenizer=NOWHERE, model=leaving.service.address) as ls,
        ls.model.open_session([[5]], reopen=True) as session,
        session.step_stream() if streamed else nullcontext(session) as steps,
    ):
        steps.step([[6]])
        time.sleep(DIALED_AGAIN_S)
        leaving.begin()
        assert steps.step([[7]]).drain_s  # it is told in time, and still answered
        assert steps.step([[8]]).rows[0][0].logits.argmax() == 9
        assert base64.b64decode(session.session_token).decode() == leaving.stayer.name
        assert session.token_ids() == [[5, 6, 7, 8]]
        # It was closed there, so nobody is waited for.
        assert leaving.leaver.process.process.wait(30) == 0


def test_a_session_stays_while_nobody_else_takes_it(tiny_checkpoint: Path, tmp_path: Path):
    with (
        counting_process(tiny_checkpoint, tmp_path, PATIENT) as only,
        Lockstep(tokenizer=NOWHERE, model=only.service.address) as ls,
    ):
        session = ls.model.open_session([[5]], reopen=True)
        only.process.terminate()
        only.wait_for_health("NOT_SERVING")
        for token in range(6, 26):
            assert session.step([[token]]).drain_s
        assert session.token_ids() == [[*range(5, 26)]]
        session.close()


@contextmanager
def secured(checkpoint: Path, folder: Path, certified: str) -> Iterator[Replica]:
    """Runs a replica that shows a certificate for a name, and asks callers for theirs."""
    folder.mkdir()
    name = f"127.0.0.1:{free_port()}"
    flags = [f"--port={name.rpartition(':')[2]}", f"--replica={name}"]
    issued = AUTHORITY.issue_cert(certified)
    for flag, data in (
        ("tls-certificate", issued.cert_chain_pems[0].bytes()),
        ("tls-key", issued.private_key_pem.bytes()),
        ("tls-client-ca", AUTHORITY.cert_pem.bytes()),
    ):
        (folder / flag).write_bytes(data)
        flags.append(f"--{flag}={folder / flag}")
    with counting_process(checkpoint, folder, *flags) as process:
        yield Replica(name, process)


def test_over_tls_a_replica_is_followed_that_proves_to_be_of_the_service(
    tiny_checkpoint: Path, tmp_path: Path
):
    own = AUTHORITY.issue_cert("caller@lockstep.test")
    tls = Tls(
        ca=AUTHORITY.cert_pem.bytes(),
        certificate=own.cert_chain_pems[0].bytes(),
        key=own.private_key_pem.bytes(),
        server_name="models.test",
    )
    with (
        secured(tiny_checkpoint, tmp_path / "one", "models.test") as one,
        secured(tiny_checkpoint, tmp_path / "two", "models.test") as two,
        secured(tiny_checkpoint, tmp_path / "other", "other.test") as other,
        Lockstep(tokenizer=NOWHERE, model=one.name, tls=tls) as there,
        Lockstep(tokenizer=NOWHERE, model=two.name, tls=tls) as here,
        Lockstep(
            tokenizer=NOWHERE, model=other.name, tls=replace(tls, server_name="other.test")
        ) as elsewhere,
    ):
        with there.model.open_session([[5]]) as session:
            assert here.model.get_session(session.session_id).token_ids() == [[5]]
        with (
            elsewhere.model.open_session([[5]]) as session,
            pytest.raises(ConnectionFailed),
        ):
            here.model.get_session(session.session_id)


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
