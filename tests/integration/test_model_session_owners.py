"""Sessions belong to the callers that certificates tell apart."""

from contextlib import contextmanager

import grpc
import pytest
import trustme
from lockstep.v1 import logits_session_service_pb2 as pb
from lockstep.v1 import model_service_pb2
from lockstep.v1.logits_session_service_pb2_grpc import LogitsSessionServiceStub
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub

from tests.integration.model_process import counting_process, ragged, refusal

AUTHORITY = trustme.CA()
NAMES = ("one@lockstep.test", "two@lockstep.test")


class Caller:
    """A client with a certificate of its own."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.sessions = LogitsSessionServiceStub(channel)
        self.model = ModelServiceStub(channel)

    def open(self) -> str:
        opened = self.sessions.OpenSession(pb.OpenSessionRequest(prompt=ragged([5])))
        return opened.session_id

    def listed(self, **fields) -> list[str]:
        answer = self.sessions.ListSessions(pb.ListSessionsRequest(**fields))
        return [session.session_id for session in answer.sessions]


@pytest.fixture(scope="module")
def address(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("owners")
    issued = AUTHORITY.issue_cert("localhost")
    flags = []
    for flag, data in (
        ("--tls-certificate", issued.cert_chain_pems[0].bytes()),
        ("--tls-key", issued.private_key_pem.bytes()),
        ("--tls-client-ca", AUTHORITY.cert_pem.bytes()),
    ):
        path = folder / flag.strip("-")
        path.write_bytes(data)
        flags += [flag, str(path)]
    with counting_process(tiny_checkpoint, folder, *flags) as service:
        yield service.service.address


@pytest.fixture
def callers(address):
    with connected(address, NAMES[0]) as one, connected(address, NAMES[1]) as two:
        yield one, two
        for caller in (one, two):
            for session_id in caller.listed():
                caller.sessions.CloseSession(pb.CloseSessionRequest(session_id=session_id))


@contextmanager
def connected(address, name):
    """Connects with a new certificate of that name."""
    issued = AUTHORITY.issue_cert(name)
    credentials = grpc.ssl_channel_credentials(
        AUTHORITY.cert_pem.bytes(),
        issued.private_key_pem.bytes(),
        issued.cert_chain_pems[0].bytes(),
    )
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(address, credentials, options) as channel:
        yield Caller(channel)


def test_a_caller_lists_its_own_sessions_only(callers):
    one, two = callers
    own = [one.open(), one.open()]
    other = two.open()
    assert one.listed() == own
    assert two.listed() == [other]
    forked = one.sessions.Fork(pb.ForkRequest(session_id=own[0])).session_ids
    assert one.listed() == [*own, *forked]
    assert two.listed() == [other]


def test_pages_of_a_list_pass_over_the_sessions_of_others(callers):
    one, two = callers
    own = []
    for _ in range(3):
        own.append(one.open())
        two.open()
    token, listed = "", []
    for _ in own:
        request = pb.ListSessionsRequest(page_size=1, page_token=token)
        page = one.sessions.ListSessions(request)
        listed += [session.session_id for session in page.sessions]
        token = page.next_page_token
    assert listed == own
    assert token == ""


ROWS = [pb.RowStep(ids=[6])]


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("Step", {"rows": ROWS}),
        ("Truncate", {"positions": [1]}),
        ("Fork", {}),
        ("SelectRows", {"row_indices": [0]}),
        ("GetSession", {}),
        ("TouchSession", {}),
        ("CloseSession", {}),
    ],
)
def test_the_session_of_another_caller_does_not_exist(callers, method, fields):
    one, two = callers
    session_id = one.open()
    message = getattr(pb, f"{method}Request")(session_id=session_id, **fields)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(two.sessions, method)(message)
    answer = refusal(caught.value)
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    getattr(one.sessions, method)(message)


def test_the_session_of_another_caller_is_neither_streamed_nor_continued(callers):
    one, two = callers
    session_id = one.open()
    step = pb.StepStreamRequest(step=pb.StepRequest(session_id=session_id, rows=ROWS))
    generation = model_service_pb2.GenerateRequest(
        session_id=session_id, generation_config={"max_new_tokens": 2}
    )
    for call in (
        lambda caller: list(caller.sessions.StepStream(iter([step]))),
        lambda caller: caller.model.Generate(generation),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(two)
        assert refusal(caught.value).reason == "SESSION_NOT_FOUND"
        call(one)


def test_a_named_step_knows_its_caller_although_it_outlives_the_call(callers):
    one, two = callers
    request = pb.StepRequest(session_id=one.open(), rows=ROWS, step_id="a")
    assert not one.sessions.Step(request).replayed
    assert one.sessions.Step(request).replayed
    with pytest.raises(grpc.RpcError) as caught:
        two.sessions.Step(request)
    assert refusal(caught.value).reason == "SESSION_NOT_FOUND"


def test_a_kept_generation_is_its_callers(callers):
    one, two = callers
    kept = one.model.Generate(
        model_service_pb2.GenerateRequest(
            prompt=ragged([5]), generation_config={"max_new_tokens": 2}, keep_session={}
        )
    )
    assert one.listed() == [kept.session_id]
    assert two.listed() == []


def test_a_new_certificate_of_the_same_name_finds_the_sessions(callers, address):
    session_id = callers[0].open()
    with connected(address, NAMES[0]) as renewed:
        assert renewed.listed() == [session_id]
