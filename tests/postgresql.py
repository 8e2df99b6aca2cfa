"""A real PostgreSQL server of the tests' own, in a folder that goes away."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.ports import free_port

# A server refuses to run as root.
USER = "nobody" if os.geteuid() == 0 else None
PASSWORD = "p@ss/word:%"  # with everything that a URL must escape
ESCAPED_PASSWORD = "p%40ss%2Fword%3A%25"
_START_TIMEOUT_S = 30.0
_names = itertools.count(1)


class PostgreSQLServer:
    """One server on a port of the loopback interface; it can be stopped and started.

    Attributes:
        folder: its data.
        port: where it listens.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, *, password: bool = True) -> str:
        """Returns where a database is, as `--store` takes it."""
        credentials = f"lockstep:{ESCAPED_PASSWORD}" if password else "lockstep"
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Connects beside the service, to look or to do harm."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="lockstep",
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        )

    def new_database(self) -> str:
        """Makes an empty database and returns its name."""
        name = f"test_{next(_names)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def initialize(self) -> None:
        """Makes the server's files."""
        secret = self.folder.parent / f"{self.folder.name}.password"
        secret.write_text(PASSWORD)
        self.own(secret)
        self._run(
            *("initdb", "--username=lockstep", f"--pwfile={secret}", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", str(self.folder)),
        )

    def start(self, *settings: str) -> None:
        """Starts the server and waits until it answers."""
        flags = [f"-c{setting}" for setting in settings]
        # A log of its own for every start: pytest cannot wait for a pipe nobody reads.
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_as_user(),
                    *(program("postgres"), "-D", str(self.folder), "-p", str(self.port)),
                    *("-h", "127.0.0.1", "-k", str(self.folder), *flags),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server: SIGINT ends its sessions, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_START_TIMEOUT_S)
            self._process = None

    def own(self, path: Path) -> None:
        """Gives a file or folder to the user that the server runs as."""
        if USER is not None:
            account = pwd.getpwnam(USER)
            os.chown(path, account.pw_uid, account.pw_gid)

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*_as_user(), program(name), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )
        assert done.returncode == 0, done.stderr


def program(name: str) -> str:
    """Finds a program of the newest PostgreSQL that is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version)
    path = os.pathsep.join([*map(str, reversed(folders)), os.environ["PATH"]])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.fail(
            f"These tests need PostgreSQL's {name}: install it (on Debian and Ubuntu, "
            "`apt-get install postgresql`). .ci/run does."
        )
    return found


@contextmanager
def running_postgresql(*settings: str) -> Iterator[PostgreSQLServer]:
    """Runs a new server."""
    # Not in pytest's folder, which is closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="lockstep-postgresql-") as folder:
        server = PostgreSQLServer(Path(folder, "data"))
        server.folder.mkdir(mode=0o700)
        for path in (Path(folder), server.folder):
            server.own(path)
        server.initialize()
        server.start(*settings)
        try:
            yield server
        finally:
            server.stop(signal.SIGINT)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQLServer]:
    """A server for all tests. A test that stops or changes one runs its own."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: PostgreSQLServer) -> str:
    """An empty database, as `--store` takes it."""
    return postgresql.url(postgresql.new_database())


def _as_user() -> list[str]:
    """Returns the words before a command that the server's user is to run.

    subprocess can change the user, too, but forks for it, which fails in a process whose tests
    have set aside more memory than the machine has.
    """
    if USER is None:
        return []
    account = pwd.getpwnam(USER)
    ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}")
    return ["setpriv", *ids, "--clear-groups", "--"]


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdecimal() else 0
