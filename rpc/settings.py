"""Settings that every server has, read once from flags and the environment.

Below a service's `__main__` nothing reads the environment: each class takes the
values it needs as arguments. Units are in the names.
"""

import argparse
import inspect
import ipaddress
import os
import re
import sys
from collections.abc import Sequence
from typing import Literal, NoReturn, Self

from pydantic import Field, FilePath, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

from rpc.identity.roles import ALL_ROLES, Role, read_roles

EXIT_USAGE = 2

_CREDENTIALS = re.compile(r"//[^/@]*@")


class ServerSettings(BaseSettings):
    """Base of a service's settings.

    A service subclasses it with its `env_prefix` and its defaults for the ports;
    the summary of the subclass heads `--help`, and the docstrings of the fields
    become their descriptions. A flag wins over its environment variable.
    """

    model_config = SettingsConfigDict(
        env_prefix="LOCKSTEP_SERVER_",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    host: str = "127.0.0.1"
    """Address that all ports listen on. `0.0.0.0` or `::` opens them to other
    machines; read docs/security.md first."""

    port: int = Field(default=0, ge=0, le=65535)
    """gRPC port. 0 picks a free one; the line printed at start names it."""

    admin_port: int | None = Field(default=None, ge=0, le=65535)
    """gRPC port that the admin services move to, so that a network can keep others
    from it; all methods are served there, and no admin's at `port`. Without it
    `port` serves everything."""

    admin_host: str = ""
    """Address that `admin_port` listens on. Empty means that of `host`."""

    health_port: int = Field(default=0, ge=0, le=65535)
    """Port of `grpc.health.v1`, always plaintext, for probes. 0 picks a free one."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of `/metrics` over HTTP, for Prometheus. 0 picks a free one."""

    tls_certificate: FilePath | None = None
    """PEM file with the certificate chain. Read again when it changes."""

    tls_key: FilePath | None = None
    """PEM file with the private key of `tls_certificate`."""

    tls_client_ca: FilePath | None = None
    """PEM file with the authorities that sign client certificates. With it, a
    client without such a certificate is refused (mutual TLS)."""

    principals: FilePath | None = None
    """TOML file that says who callers are, by hashes of their bearer tokens or names
    in their certificates, and what each may do; docs/security.md describes it. Read
    again within a second when it changes."""

    jwt_keys: FilePath | None = None
    """JSON Web Key Set with the public keys of an identity provider, whose web tokens
    (JWT) are taken as bearer tokens. Read again within a second when it changes."""

    jwt_issuer: str = ""
    """Issuer (`iss`) of these web tokens."""

    jwt_audience: str = ""
    """Audience (`aud`) that these web tokens must be for."""

    jwt_roles_claim: str = "roles"
    """Claim of these web tokens with the roles of the caller: a list, or a text with
    spaces between."""

    allow_anonymous: str | None = None
    """Roles of callers without credentials, with commas between, or `all` or `none`.
    Without it they may do everything on a machine's own address (`127.0.0.1`) while
    nothing identifies callers, and else only read `/metrics`."""

    drain_timeout_s: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    """Seconds that running calls get to finish after SIGTERM. Keep it below the
    pod's `terminationGracePeriodSeconds`."""

    max_message_bytes: int = Field(default=4 * 2**20, ge=2**10, le=2**28)
    """Largest request message, in bytes. A larger one is answered with
    `MESSAGE_TOO_LARGE`."""

    max_response_bytes: int = Field(default=64 * 2**20, ge=2**10, le=2**30)
    """Largest response message, in bytes. A larger one is answered with
    `RESPONSE_TOO_LARGE`."""

    max_concurrent_calls: int = Field(default=4096, ge=1)
    """Most calls in progress, idle streams included. Beyond it, `OVERLOADED`. A
    last resort: each service has narrower limits."""

    max_connections: int = Field(default=1024, ge=1)
    """Most client connections. Beyond it, new ones are closed."""

    max_streams_per_connection: int = Field(default=256, ge=1)
    """Most concurrent calls on one connection. Beyond it, the client waits."""

    max_connection_age_s: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    """Seconds after which a client is asked to connect again, so that it finds new
    replicas. Its running calls continue for `max_connection_age_grace_s`."""

    max_connection_age_grace_s: float = Field(default=330.0, gt=0, allow_inf_nan=False)
    """Seconds that calls get to finish on a connection past its age. Keep it above
    the duration of the longest stream."""

    reflection: bool = False
    """Serve the schema to anyone who asks (gRPC server reflection)."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level written to the log. `info` includes a line for every call."""

    @property
    def service(self) -> str:
        """The package that defines these settings, such as `tokenizer_service`."""
        return type(self).__module__.partition(".")[0]

    @property
    def is_public(self) -> bool:
        """Whether other machines may reach a port."""
        return not (is_loopback(self.host) and is_loopback(self.admin_host or self.host))

    @property
    def identifies_callers(self) -> bool:
        """Whether one caller can be told from another."""
        return any((self.principals, self.jwt_keys, self.tls_client_ca))

    @property
    def anonymous_roles(self) -> frozenset[Role]:
        """What callers without credentials may do."""
        if self.allow_anonymous is not None:
            return read_roles(self.allow_anonymous)
        trusted = not self.is_public and not self.identifies_callers
        return ALL_ROLES if trusted else frozenset({Role.METRICS})

    def loggable(self) -> dict[str, object]:
        """Returns every value as a JSON type, without the passwords in URLs."""
        values = self.model_dump(mode="json")
        return {
            name: _CREDENTIALS.sub("//***@", value) if isinstance(value, str) else value
            for name, value in values.items()
        }

    @classmethod
    def from_command_line(cls, arguments: Sequence[str] | None = None) -> Self:
        """Reads flags, then the environment, then defaults.

        A setting that is unknown or wrong ends the process with one line on
        stderr and exit code 2; `--help` prints every setting and ends it with 0.

        Args:
            arguments: the flags; None means the command line of this process.

        Raises:
            SystemExit: a setting is unknown or wrong, or help was asked for.
        """
        flags = list(sys.argv[1:] if arguments is None else arguments)
        try:
            cls._refuse_unknown_variables()
            parser = cls._parser()
            return cls(
                _cli_settings_source=CliSettingsSource(
                    cls, cli_parse_args=flags, root_parser=parser
                )
            )
        except ValidationError as error:
            problems = "; ".join(cls._describe(problem, flags) for problem in error.errors())
        except SettingsError as error:
            problems = str(error)
        sys.stderr.write(f"{cls._program()}: {problems}\n")
        raise SystemExit(EXIT_USAGE)

    @classmethod
    def _program(cls) -> str:
        return f"python -m {cls.__module__.partition('.')[0]}"

    @classmethod
    def _describe(cls, problem: ErrorDetails, flags: Sequence[str]) -> str:
        """Names the flag, or the variable where the value did not come from a flag."""
        text = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            return text
        field = str(problem["loc"][0])
        name = "--" + field.replace("_", "-")
        if problem["type"] != "missing" and name not in {flag.partition("=")[0] for flag in flags}:
            name = cls.model_config.get("env_prefix", "") + field.upper()
        return f"{name}: {text[:1].lower()}{text[1:]}"

    @classmethod
    def _parser(cls) -> "_Parser":
        summary, _, _ = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")
        prefix = cls.model_config.get("env_prefix", "")
        return _Parser(
            prog=cls._program(),
            description=summary,
            epilog=f"Every flag is also a variable: --log-level is {prefix}LOG_LEVEL.",
            allow_abbrev=False,
        )

    @classmethod
    def _refuse_unknown_variables(cls) -> None:
        """A misspelt variable would be ignored in silence by pydantic-settings."""
        prefix = cls.model_config.get("env_prefix", "").upper()
        known = {f"{prefix}{field}".upper() for field in cls.model_fields}
        ours = {name for name in os.environ if name.upper().startswith(prefix)}
        unknown = sorted(name for name in ours if name.upper() not in known)
        if unknown:
            # Kubernetes adds variables for each Service, named after it.
            links = any(name.endswith("_SERVICE_HOST") for name in unknown)
            hint = " (on Kubernetes, set enableServiceLinks: false)" if links else ""
            raise SettingsError(f"unrecognized environment variables: {' '.join(unknown)}{hint}")

    @field_validator("allow_anonymous")
    @classmethod
    def _roles_are_known(cls, roles: str | None) -> str | None:
        if roles is not None:
            read_roles(roles)
        return roles

    @model_validator(mode="after")
    def _web_tokens_are_for_somebody(self) -> Self:
        if len({bool(each) for each in (self.jwt_keys, self.jwt_issuer, self.jwt_audience)}) > 1:
            raise ValueError("--jwt-keys, --jwt-issuer and --jwt-audience go together")
        return self

    @model_validator(mode="after")
    def _tls_files_come_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("--tls-client-ca needs --tls-certificate and --tls-key")
        return self


def is_loopback(host: str) -> bool:
    """Returns whether only the same machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its long usage."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)
