"""Every method, called with every kind of credentials: what is expected comes from the schema."""

from contextlib import contextmanager

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import Default as default_pool
from lockstep.v1 import logits_session_service_pb2 as sessions

from rpc.identity import Role
from rpc.identity.roles import POLICY, is_for_admins
from tests.callers import ROLES, bearer, write_principals
from tests.integration.model_process import counting_process, ragged, refusal
from tests.services import running_process
from tokenizer_service.server import SERVICES as TOKENIZER_SERVICES

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
REFUSED = {UNAUTHENTICATED, DENIED}
# What a caller with the role may get for a message without fields, or for half of a stream.
ANSWERED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.CANCELLED,
}

METHODS = sorted(path for path in POLICY if path.startswith("/lockstep."))
PRINCIPALS = {
    **{f"only-{role}": {"roles": [role]} for role in ROLES},
    **{f"without-{role}": {"roles": [each for each in ROLES if each != role]} for role in ROLES},
    "expired": {"roles": ROLES, "expires": "2020-01-01T00:00:00Z"},
    "owner": {"roles": ROLES},
    "another": {"roles": ROLES},
}


def described(path):
    service, method = path[1:].split("/")
    return default_pool().FindServiceByName(service).methods_by_name[method]


def path_of_session(message, depth=3):
    """Returns the names of the fields that lead to the session of a request, if it can have one."""
    for field in message.fields:
        if field.name == "session_id":
            return [field.name]
        if depth and field.message_type and field.name in {"step", "request", "generate"}:
            inner = path_of_session(field.message_type, depth - 1)
            if inner:
                return [field.name, *inner]
    return None


USING_SESSIONS = {
    path: names for path in METHODS if (names := path_of_session(described(path).input_type))
}


def request_of(path, session_id=""):
    """Builds a request without fields, or one that names a session."""
    message = message_factory.GetMessageClass(described(path).input_type)()
    *parents, leaf = USING_SESSIONS.get(path, [""])
    if session_id:
        place = message
        for name in parents:
            place = getattr(place, name)
        setattr(place, leaf, session_id)
    return message


@pytest.fixture(scope="module")
def services(tiny_checkpoint, tmp_path_factory):
    """Both services with a port for admins; addresses of both ports by the name of a service."""
    folder = tmp_path_factory.mktemp("policy")
    flags = [f"--principals={write_principals(folder / 'principals.toml', PRINCIPALS)}"]
    flags += ["--admin-port=0"]
    with (
        counting_process(tiny_checkpoint, folder, "--tokenizer-address=none", *flags) as model,
        running_process(
            "tokenizer_service",
            f"--model={tiny_checkpoint}",
            f"--store=sqlite:///{folder / 'vocabulary.db'}",
            *flags,
            folder=folder,
        ) as tokenizer,
    ):
        tokenizer.wait_until_serving()
        yield {"tokenizer": tokenizer, "model": model.service}


@pytest.fixture(scope="module")
def session_id(services):
    with connected(services, "/lockstep.v1.LogitsSessionService/OpenSession") as channel:
        call = channel.unary_unary(
            "/lockstep.v1.LogitsSessionService/OpenSession",
            sessions.OpenSessionRequest.SerializeToString,
            sessions.OpenSessionResponse.FromString,
        )
        request = sessions.OpenSessionRequest(prompt=ragged([5]))
        return call(request, metadata=bearer("owner")).session_id


@contextmanager
def connected(services, path, *, admin=True):
    kind = "tokenizer" if path[1:].split("/")[0] in TOKENIZER_SERVICES else "model"
    service = services[kind]
    with grpc.insecure_channel(service.admin_address if admin else service.address) as channel:
        yield channel


def code_of(channel, path, token, request):
    """Makes a call, and leaves it after the first response. Returns the code, and the error."""
    method = described(path)
    kind = f"{_arity(method.client_streaming)}_{_arity(method.server_streaming)}"
    call = getattr(channel, kind)(path, lambda message: message.SerializeToString())
    metadata = bearer(token) if token else ()
    argument = iter([request]) if method.client_streaming else request
    try:
        answer = call(argument, timeout=20, metadata=metadata)
        if method.server_streaming:
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        return error.code(), error
    return grpc.StatusCode.OK, None


def _arity(streaming):
    return "stream" if streaming else "unary"


def test_the_schema_has_as_many_methods_as_the_table():
    assert len(METHODS) == 42


@pytest.mark.parametrize("path", METHODS)
def test_a_method_is_for_those_who_have_its_role_and_for_nobody_else(services, session_id, path):
    role = POLICY[path]
    found = {}
    with connected(services, path) as channel:
        for kind, token in {
            "none": "",
            "garbage": "garbage",
            "expired": "expired",
            "wrong role": f"without-{role}",
            "right": f"only-{role}",
        }.items():
            code, error = code_of(channel, path, token, request_of(path))
            found[kind] = code
            if code in REFUSED:
                assert refusal(error).info.metadata.get("role", "") in {"", role}
    no_session = {grpc.StatusCode.NOT_FOUND} if path in USING_SESSIONS else set()
    assert found.pop("right") in ANSWERED | no_session
    assert found == {
        "none": UNAUTHENTICATED,
        "garbage": UNAUTHENTICATED,
        "expired": UNAUTHENTICATED,
        "wrong role": DENIED,
    }


@pytest.mark.parametrize("path", USING_SESSIONS)
def test_a_session_is_nobodys_but_its_owners(services, session_id, path):
    if path.endswith("/CloseSession"):
        pytest.skip("the others use the session, too: see test_model_session_owners")
    with connected(services, path) as channel:
        request = request_of(path, session_id)
        code, error = code_of(channel, path, "another", request)
        assert code is grpc.StatusCode.NOT_FOUND
        assert refusal(error).reason == "SESSION_NOT_FOUND"
        assert code_of(channel, path, "owner", request)[0] in ANSWERED


@pytest.mark.parametrize("path", [path for path in METHODS if "ModelService/" in path])
def test_sessions_of_generations_need_the_role_of_sessions(services, session_id, path):
    if path not in USING_SESSIONS:
        pytest.skip("has none")
    with connected(services, path) as channel:
        code, error = code_of(channel, path, f"only-{Role.INFERENCE}", request_of(path, session_id))
    assert (code, refusal(error).info.metadata["role"]) == (DENIED, Role.SESSION)


@pytest.mark.parametrize("path", METHODS)
def test_at_the_port_of_callers_there_is_nothing_for_admins(services, path):
    with connected(services, path, admin=False) as channel:
        code, error = code_of(channel, path, f"only-{POLICY[path]}", request_of(path))
    if is_for_admins(path[1:].split("/")[0]):
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "--admin-port" in refusal(error).message
    else:
        assert code not in {*REFUSED, grpc.StatusCode.UNIMPLEMENTED}
