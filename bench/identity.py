"""`python -m bench.identity`: what it costs to know who calls, in microseconds a call."""

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from bench.spread import spread
from rpc.handlers import Handler
from rpc.identity.authenticator import Authenticator
from rpc.identity.interceptor import AUTHORIZATION_KEY, IdentityInterceptor
from rpc.identity.principals import Principals
from rpc.identity.roles import ALL_ROLES
from rpc.identity.watched_file import WatchedFile
from rpc.identity.web_tokens import TokenIssuer

CALLS = 20_000
ROUNDS = 7
NUM_PRINCIPALS = 100

_PATH = "/lockstep.v1.ModelService/Generate"
_OTHERS = (("user-agent", "grpc-python/1.82"), ("x-request-id", "0123456789abcdef"))


async def main() -> None:
    """Measures each kind of credentials, remembered and not."""
    with tempfile.TemporaryDirectory() as folder:
        token = secrets.token_hex(32)
        authenticator, web_token = _authenticator(Path(folder), token)
        print("| caller | microseconds a call: median (min to max) |\n|---|---|")
        for name, value, forget in (
            ("without credentials", "", False),
            ("bearer token", token, False),
            (f"bearer token, new, one of {NUM_PRINCIPALS}", token, True),
            ("web token", web_token, False),
            ("web token, new", web_token, True),
        ):
            times = [await _time(authenticator, value, forget=forget) for _ in range(ROUNDS)]
            print(f"| {name} | {spread(times, 1)} |")


async def _time(authenticator: Authenticator, token: str, *, forget: bool) -> float:
    """Returns microseconds that the interceptor adds to a call."""
    metadata: Sequence[tuple[str, str]] = _OTHERS
    if token:
        metadata = (*_OTHERS, (AUTHORIZATION_KEY, f"Bearer {token}"))
    details = cast(
        grpc.HandlerCallDetails, SimpleNamespace(method=_PATH, invocation_metadata=metadata)
    )
    interceptor = IdentityInterceptor(authenticator, by_certificate=False)
    handler = cast(Handler, object())

    async def continuation(details: Any) -> Handler:
        return handler

    calls = CALLS // 100 if forget else CALLS
    start = time.perf_counter()
    for _ in range(calls):
        await continuation(details)
    middle = time.perf_counter()
    for _ in range(calls):
        if forget:
            authenticator.forget()
        await interceptor.intercept_service(continuation, details)
    return (time.perf_counter() - middle - (middle - start)) / calls * 1e6


def _authenticator(folder: Path, token: str) -> tuple[Authenticator, str]:
    """Returns one that knows a token among others, and a web token that it takes."""
    entries = [
        f"[principal-{index}]\nroles = ['inference']\n"
        f"token_sha256 = ['{sha256((token if index == 0 else str(index)).encode()).hexdigest()}']"
        for index in range(NUM_PRINCIPALS)
    ]
    principals, keys = folder / "principals.toml", folder / "keys.json"
    principals.write_text("\n".join(entries))
    key = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    keys.write_text(json.dumps({"keys": [{**public, "kid": "1", "alg": "ES256"}]}))
    issuer = TokenIssuer(keys, issuer="bench", audience="bench", roles_claim="roles")
    claims = {"iss": "bench", "aud": "bench", "sub": "bench", "exp": time.time() + 3600}
    web_token = jwt.encode({**claims, "roles": ["inference"]}, key, "ES256", {"kid": "1"})
    return Authenticator(WatchedFile(principals, Principals.read), issuer, ALL_ROLES), web_token


if __name__ == "__main__":
    asyncio.run(main())
