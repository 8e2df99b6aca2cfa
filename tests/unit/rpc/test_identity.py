"""Who a token or a certificate names, and what it may do."""

import json
import os
import time
from hashlib import sha256

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lockstep.v1 import (  # noqa: F401  # their services are in the table
    logits_session_service_pb2,
    model_admin_service_pb2,
    model_info_service_pb2,
    model_service_pb2,
    tokenizer_service_pb2,
    vocabulary_admin_service_pb2,
)

from rpc import errors, identity
from rpc.identity import Allowance, Principal, Role, roles, watched_file
from rpc.identity.authenticator import CERTIFIED_ROLES, Authenticator
from rpc.identity.principals import Principals
from rpc.identity.roles import POLICY, PolicyError, check_policy, read_roles
from rpc.identity.watched_file import WatchedFile
from rpc.identity.web_tokens import TokenIssuer
from tests.callers import called_by

ISSUER, AUDIENCE = "https://identity.test", "lockstep"


def digest(token):
    return sha256(token.encode()).hexdigest()


def bearer(token):
    return [f"Bearer {token}"]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a file of principals, which is looked at for every call."""
    monkeypatch.setattr(watched_file, "_LOOK_INTERVAL_S", -1)
    path = tmp_path / "principals.toml"

    def write(text):
        new = path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, path)
        return path

    return write


def authenticator(path=None, issuer=None, anonymous=frozenset()):
    return Authenticator(path and WatchedFile(path, Principals.read), issuer, anonymous)


def refusal_of(known, authorization):
    with pytest.raises(errors.Unauthenticated) as refused:
        known.of_token(authorization)
    return refused.value.metadata["cause"]


# --- The table of roles --------------------------------------------------------------------------


def test_every_method_of_the_schema_asks_for_one_role():
    services = {path.split("/")[1] for path in POLICY if path.startswith("/lockstep.")}
    assert len(services) == 6
    check_policy(services)


def test_a_server_does_not_start_with_a_method_that_has_no_role(monkeypatch):
    monkeypatch.delitem(POLICY, "/lockstep.v1.ModelService/Score")
    with pytest.raises(PolicyError, match=r"/lockstep\.v1\.ModelService/Score"):
        check_policy(["lockstep.v1.ModelService"])


def test_a_server_does_not_start_with_a_role_of_a_method_that_is_not_there(monkeypatch):
    monkeypatch.setitem(POLICY, "/lockstep.v1.ModelService/Scroe", Role.INFERENCE)
    with pytest.raises(PolicyError, match="Scroe"):
        check_policy(["lockstep.v1.ModelService"])


def test_every_role_has_a_meaning():
    assert set(roles.MEANINGS) == set(Role)


def test_services_are_for_admins_whole_or_not_at_all():
    admins = {path for path, role in POLICY.items() if role.value.endswith("-admin")}
    assert admins == {path for path in POLICY if roles.is_for_admins(path.split("/")[1])}


def test_roles_are_read_from_a_list():
    assert read_roles(" inference, session ") == {Role.INFERENCE, Role.SESSION}
    assert read_roles("all") == set(Role)
    assert read_roles("none") == read_roles("") == frozenset()
    with pytest.raises(ValueError, match=r"there is no role 'admin'; roles are inference, "):
        read_roles("inference,admin")


# --- Tokens --------------------------------------------------------------------------------------


def test_a_token_is_known_by_its_hash(file):
    known = authenticator(
        file(f"[alice]\nroles = ['inference', 'info']\ntoken_sha256 = ['{digest('secret')}']")
    )
    for _ in range(2):  # the second time it is remembered
        found = known.of_token(bearer("secret"))
        assert (found.name, found.roles) == ("alice", {Role.INFERENCE, Role.INFO})
    assert known.of_token(["bearer secret"]) == found


@pytest.mark.parametrize(
    "authorization",
    [
        ["Bearer wrong"],
        ["Bearer "],
        ["secret"],
        ["Basic secret"],
        ["Bearer secret", "Bearer secret"],
        ["Bearer " + digest("secret")],
        [""],
    ],
)
def test_anything_but_a_known_token_is_refused_and_not_repeated(file, authorization):
    known = authenticator(file(f"[alice]\nroles = []\ntoken_sha256 = ['{digest('secret')}']"))
    with pytest.raises(errors.Unauthenticated) as refused:
        known.of_token(authorization)
    assert refused.value.metadata == {"cause": "unknown", "role": ""}
    assert "secret" not in str(refused.value)


def test_where_no_token_is_taken_none_is_looked_at():
    assert authenticator().of_token(bearer("whatever")) is None


def test_a_token_is_refused_from_the_moment_it_expires(file):
    entry = f"[alice]\nroles = ['info']\ntoken_sha256 = ['{digest('secret')}']\n"
    known = authenticator(file(entry + "expires = 2100-01-01T00:00:00Z"))
    assert known.of_token(bearer("secret")).name == "alice"
    file(entry + "expires = 2020-01-01T00:00:00Z")
    assert refusal_of(known, bearer("secret")) == "expired"


def test_a_token_that_is_taken_out_of_the_file_is_forgotten(file):
    known = authenticator(file(f"[alice]\nroles = []\ntoken_sha256 = ['{digest('secret')}']"))
    assert known.of_token(bearer("secret")).name == "alice"
    file(f"[bob]\nroles = []\ntoken_sha256 = ['{digest('other')}']")
    assert refusal_of(known, bearer("secret")) == "unknown"
    assert known.of_token(bearer("other")).name == "bob"


def test_a_file_that_is_broken_later_leaves_what_was_known(file, capsys):
    known = authenticator(file(f"[alice]\nroles = []\ntoken_sha256 = ['{digest('secret')}']"))
    file("[alice")
    assert known.of_token(bearer("secret")).name == "alice"
    file("").unlink()
    assert known.of_token(bearer("secret")).name == "alice"
    assert "file_not_usable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[alice", "TOML|toml|Expected"),
        ("[alice]", r"alice\.roles"),
        ("[alice]\nroles = ['admin']", r"alice\.roles"),
        ("[alice]\nroles = []\ntoken_sha256 = ['hunter2']", r"alice\.token_sha256"),
        ("[alice]\nroles = []\ntoken = 'hunter2'", r"alice\.token"),
        ("[alice]\nroles = []\nexpires = 2030-01-01", r"alice\.expires"),
        ("[alice]\nroles = []\nquota = { coffee = 1 }", r"alice\.quota"),
        ("['jwt:alice']\nroles = []", "alice"),
        ("alice = 1", "alice"),
        (
            "[alice]\nroles = []\ncertificates = ['a']\n[bob]\nroles = []\ncertificates = ['a']",
            r"bob\.certificates: alice has it, too",
        ),
    ],
)
def test_a_file_that_makes_no_sense_stops_the_start_and_names_the_place(file, text, place):
    with pytest.raises(OSError, match=place) as refused:
        authenticator(file(text))
    assert "principals.toml" in str(refused.value)
    assert "hunter2" not in str(refused.value)


# --- Certificates --------------------------------------------------------------------------------


def test_a_certificate_has_the_roles_of_users_where_nobody_says_who_callers_are():
    found = authenticator().of_certificate(["b", "a"])
    assert (found.name, found.roles) == ("a\nb", CERTIFIED_ROLES)
    assert not found.roles & {Role.VOCABULARY_ADMIN, Role.MODEL_ADMIN}


def test_a_certificate_is_known_by_any_of_its_names(file):
    known = authenticator(
        file("[alice]\nroles = ['model-admin']\ncertificates = ['alice@test', 'a.test']"),
        anonymous=frozenset({Role.INFO}),
    )
    found = known.of_certificate(["x", "a.test"])
    assert (found.name, found.roles) == ("alice", {Role.MODEL_ADMIN})
    stranger = known.of_certificate(["alice"])  # the name of a principal is no name of its own
    assert (stranger.name, stranger.roles) == ("", {Role.INFO})


# --- Web tokens ----------------------------------------------------------------------------------

RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP256R1())


def public_keys(**keys):
    """Returns a JSON Web Key Set with these keys, by id."""
    algorithms = {"RSA": jwt.algorithms.RSAAlgorithm, "EC": jwt.algorithms.ECAlgorithm}
    return json.dumps(
        {
            "keys": [
                {
                    **algorithms[name.split("_")[0]].to_jwk(key.public_key(), as_dict=True),
                    "kid": name,
                    "alg": {"RSA": "RS256", "EC": "ES256"}[name.split("_")[0]],
                }
                for name, key in keys.items()
            ]
        }
    )


@pytest.fixture
def issuer(tmp_path, monkeypatch):
    monkeypatch.setattr(watched_file, "_LOOK_INTERVAL_S", -1)
    path = tmp_path / "keys.json"
    path.write_text(public_keys(RSA_1=RSA, EC_1=EC))
    return TokenIssuer(path, issuer=ISSUER, audience=AUDIENCE, roles_claim="roles")


def signed(key=EC, key_id="EC_1", algorithm="ES256", **changes):
    claims = {
        "iss": ISSUER,
        "aud": [AUDIENCE, "others"],
        "sub": "bob",
        "exp": time.time() + 24 * 3600,  # some are made when tests are collected
        "roles": ["inference", "openid"],
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": key_id} if key_id else None)


@pytest.mark.parametrize(
    "token", [signed(), signed(RSA, "RSA_1", "RS256"), signed(roles="openid inference")]
)
def test_a_web_token_names_its_subject_and_roles(issuer, token):
    found = authenticator(issuer=issuer).of_token(bearer(token))
    assert (found.name, found.roles) == ("jwt:bob", {Role.INFERENCE})


@pytest.mark.parametrize("claim", [None, 7, True, {"inference": True}, ["other", 7], ""])
def test_a_claim_that_names_no_roles_gives_none(issuer, claim):
    assert authenticator(issuer=issuer).of_token(bearer(signed(roles=claim))).roles == frozenset()


@pytest.mark.parametrize(
    "token",
    [
        signed(STRANGER),
        signed(key_id="EC_2"),
        signed(key_id=None),
        signed(iss="https://others.test"),
        signed(aud="others"),
        signed(sub=None),
        signed(exp=None),
        signed("x" * 32, "EC_1", "HS256"),
        signed(None, "EC_1", "none"),
        signed() + "x",
        "a.b.c",
        "",
    ],
)
def test_a_web_token_that_is_not_the_providers_is_unknown(issuer, token):
    assert refusal_of(authenticator(issuer=issuer), bearer(token)) == "unknown"


def test_a_web_token_is_refused_when_it_expires_also_once_it_is_remembered(issuer, monkeypatch):
    known = authenticator(issuer=issuer)
    token = signed(exp=time.time() + 60)
    known.of_token(bearer(token))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 120)
    assert refusal_of(known, bearer(token)) == "expired"
    assert refusal_of(known, bearer(signed(exp=now - 60))) == "expired"


def test_a_key_that_is_taken_out_of_the_set_signs_nothing_any_more(issuer, tmp_path):
    known = authenticator(issuer=issuer)
    assert known.of_token(bearer(signed())).name == "jwt:bob"
    (tmp_path / "keys.json").write_text(public_keys(RSA_1=RSA))
    assert refusal_of(known, bearer(signed())) == "unknown"
    only = signed(RSA, None, "RS256")  # the only key needs no name
    assert known.of_token(bearer(only)).name == "jwt:bob"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}']
)
def test_keys_that_are_no_public_keys_stop_the_start(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(OSError, match=r"keys\.json"):
        TokenIssuer(path, issuer=ISSUER, audience=AUDIENCE, roles_claim="roles")


def test_a_web_token_and_a_principal_never_have_the_same_name(file, issuer):
    known = authenticator(file(f"[bob]\nroles = []\ntoken_sha256 = ['{digest('secret')}']"), issuer)
    assert known.of_token(bearer("secret")).name == "bob"
    assert known.of_token(bearer(signed())).name == "jwt:bob"


# --- What a caller may do ------------------------------------------------------------------------


def test_who_lacks_a_role_is_told_which():
    with called_by("alice", Role.INFO):
        identity.require(Role.INFO)
        with pytest.raises(errors.PermissionDenied) as denied:
            identity.require(Role.MODEL_ADMIN)
    assert denied.value.metadata == {"role": "model-admin"}


def test_who_shows_nothing_is_asked_for_credentials():
    with called_by("", Role.INFO), pytest.raises(errors.Unauthenticated) as refused:
        identity.require(Role.SESSION)
    assert refused.value.metadata == {"cause": "missing", "role": "session"}


def test_every_remedy_reaches_the_caller_whole():
    for role in Role:
        assert len(str(errors.Unauthenticated("missing", role))) < 300
        assert len(str(errors.PermissionDenied(role))) < 300


def test_code_that_runs_for_no_call_may_do_everything():
    for role in Role:
        identity.require(role)
    assert identity.caller() == ""


def test_a_principal_has_the_quota_of_every_caller_unless_it_has_its_own():
    with called_by("alice", quotas={"sessions": 3}):
        assert identity.quota("sessions", 5) == 3
        assert identity.quota("sequences", 5) == 5


# --- Allowances ----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_an_allowance_comes_back_evenly_and_says_when(clock):
    tokens = Allowance("tokens_per_minute", 60, 60)
    with called_by("alice"):
        tokens.check(50)
        tokens.use(50)
        with pytest.raises(errors.QuotaExceeded) as refused:
            tokens.check(30)
        assert refused.value.retry_delay_s == 20
        assert refused.value.metadata == {"quota": "tokens_per_minute", "limit": "60"}
        clock[0] += 19.9
        with pytest.raises(errors.QuotaExceeded):
            tokens.check(30)
        clock[0] += 0.1
        tokens.check(30)
    with called_by("bob"):
        tokens.check(60)


def test_what_is_larger_than_the_whole_allowance_waits_for_all_of_it_and_owes_the_rest(clock):
    tokens = Allowance("tokens_per_minute", 60, 60)
    with called_by("alice"):
        tokens.check(600)
        tokens.use(600)
        with pytest.raises(errors.QuotaExceeded) as refused:
            tokens.check(1)
        assert refused.value.retry_delay_s == 541
        clock[0] += 541
        tokens.check(1)


def test_without_a_limit_there_is_nothing_to_use_up():
    tokens = Allowance("tokens_per_minute", 0, 60)
    tokens.use(10**9)
    tokens.check(10**9)


def test_callers_who_owe_nothing_are_forgotten(clock):
    tokens = Allowance("tokens_per_minute", 60, 60)
    for number in range(5000):
        with called_by(str(number)):
            tokens.use(1000 if number == 0 else 1)
        clock[0] += 1
    assert len(tokens._accounts) < 1100
    assert Principal("", frozenset()).name == ""
