"""What callers may do, and which of it each method asks for.

A method that is not in the table is served to nobody: a server does not start with one.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from google.protobuf import descriptor_pool


class Role(StrEnum):
    """A part of what a server does, which its operator gives to callers or does not."""

    INFERENCE = "inference"
    SESSION = "session"
    INFO = "info"
    VOCABULARY_ADMIN = "vocabulary-admin"
    MODEL_ADMIN = "model-admin"
    METRICS = "metrics"


MEANINGS: Mapping[Role, str] = {
    Role.INFERENCE: "turn text into tokens and back, generate, score",
    Role.SESSION: "keep KV cache between calls: open, step, fork and continue own sessions",
    Role.INFO: "read what is served: the model, the tokenizer and its vocabulary as it grows; "
    "a model service needs it at the tokenizer service that it follows",
    Role.VOCABULARY_ADMIN: "add tokens, give them roles, read and restore the log of revisions",
    Role.MODEL_ADMIN: "pause and resume a model, drop its prefix cache, go before others "
    "(a `priority` below 0)",
    Role.METRICS: "read `/metrics`",
}
"""What each role is for."""

ALL_ROLES = frozenset(Role)

_TABLE: Mapping[Role, Mapping[str, str]] = {
    Role.INFERENCE: {
        "lockstep.v1.TokenizerService": "Encode EncodeStream CountTokens Decode DecodeStream Pad "
        "ApplyChatTemplate ConvertTokens",
        "lockstep.v1.ModelService": "Generate GenerateStream Score ComputeLogits",
        "lockstep.v1.ModelInfoService": "ValidateRequest",
    },
    Role.SESSION: {
        "lockstep.v1.LogitsSessionService": "OpenSession Step StepStream Truncate Fork SelectRows "
        "RebindSession GetSession ListSessions TouchSession CloseSession",
    },
    Role.INFO: {
        "lockstep.v1.TokenizerService": "GetTokenizerInfo GetVocabulary GetTokenizerArtifact "
        "WatchVocabulary",
        "lockstep.v1.ModelInfoService": "GetModelInfo GetCapabilities ListLogitsProcessors GetLoad",
        "grpc.reflection.v1alpha.ServerReflection": "ServerReflectionInfo",
    },
    Role.VOCABULARY_ADMIN: {
        "lockstep.v1.VocabularyAdminService": "AddTokens SetSpecialTokens ListRevisions "
        "VerifyRevisions ExportRevisions ImportRevisions",
    },
    Role.MODEL_ADMIN: {
        "lockstep.v1.ModelAdminService": "GetVocabularyState FlushPrefixCache Drain Resume",
    },
}

POLICY: Mapping[str, Role] = {
    f"/{service}/{method}": role
    for role, services in _TABLE.items()
    for service, methods in services.items()
    for method in methods.split()
}
"""The role that a method asks for, by its path."""


_ADMIN_ROLES = frozenset({Role.VOCABULARY_ADMIN, Role.MODEL_ADMIN})


class PolicyError(Exception):
    """The table and the schema differ: a bug of whoever added or renamed a method."""


def check_policy(services: Iterable[str]) -> None:
    """Checks that the table has every method of the services, and none that they do not have.

    Args:
        services: full names. Their modules must have been imported.

    Raises:
        PolicyError: it has not.
    """
    for service in services:
        described = descriptor_pool.Default().FindServiceByName(service)
        methods = {f"/{service}/{method.name}" for method in described.methods}
        named = {path for path in POLICY if path.startswith(f"/{service}/")}
        if missing := sorted(methods - named):
            raise PolicyError(f"No role is asked for {', '.join(missing)}: see rpc/identity/roles.")
        if unknown := sorted(named - methods):
            raise PolicyError(f"There is no {', '.join(unknown)}: see rpc/identity/roles.")


def is_for_admins(service: str) -> bool:
    """Returns whether all methods of a service ask for the role of an admin."""
    return any(service in _TABLE[role] for role in _ADMIN_ROLES)


def read_roles(text: str) -> frozenset[Role]:
    """Reads roles separated by commas; `all` and `none` stand for themselves.

    Raises:
        ValueError: there is no such role.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names in (["all"], ["none"]):
        return ALL_ROLES if names == ["all"] else frozenset()
    return roles_of(names)


def roles_of(names: Sequence[str]) -> frozenset[Role]:
    """Returns the roles of these names.

    Raises:
        ValueError: there is no such role.
    """
    known = [role.value for role in Role]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no role {name!r}; roles are {', '.join(known)}")
    return frozenset(Role(name) for name in names)
