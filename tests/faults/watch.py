"""What must be as before after a fault, and streams that must not notice it."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.services import ServiceProcess, Services

QUIET_S = 30.0
"""How long a busy machine may take until a service has cleaned up."""

# Gauges of work and of what it holds; the follower's stream is a call of the tokenizer service.
_EMPTY = (
    "lockstep_model_requests_running",
    "lockstep_model_requests_waiting",
    "lockstep_model_kv_cache_used_bytes",
    "lockstep_model_sessions",
    "grpc_server_in_flight",
)


@dataclass(frozen=True)
class Held:
    """What a service holds.

    Attributes:
        work: values of the gauges of work that are not 0.
        num_files: open descriptors of front and engine.
        num_threads: threads of both.
        series: names and labels of all metrics.
    """

    work: dict[str, float]
    num_files: int
    num_threads: int
    series: frozenset[str]

    @classmethod
    def by(cls, service: ServiceProcess) -> "Held":
        """Looks at a service."""
        with urllib.request.urlopen(service.metrics_url, timeout=30) as page:
            text = page.read().decode()
        samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]
        front = psutil.Process(service.process.pid)
        processes = [front, *front.children(recursive=True)]
        return cls(
            {
                f"{sample.name} {sample.labels}": sample.value
                for sample in samples
                if sample.name in _EMPTY and sample.value
            },
            sum(process.num_fds() for process in processes),
            sum(process.num_threads() for process in processes),
            frozenset(f"{sample.name}{sorted(sample.labels.items())}" for sample in samples),
        )


def wait_until_idle(service: ServiceProcess) -> None:
    """Waits until a service has no work and holds nothing for anybody."""
    deadline = time.monotonic() + QUIET_S
    while work := Held.by(service).work:
        assert time.monotonic() < deadline, work
        time.sleep(0.2)


def memory(service: ServiceProcess) -> int:
    """Returns the resident bytes of front and engine."""
    front = psutil.Process(service.process.pid)
    return sum(each.memory_info().rss for each in (front, *front.children(recursive=True)))


@contextmanager
def leaving_nothing(service: ServiceProcess) -> Iterator[Held]:
    """Checks that a model service holds no more after the block than before.

    A pool of threads keeps a few, and a connection is closed a moment after its peer.
    """
    before = Held.by(service)
    assert before.work == {}
    yield before
    deadline = time.monotonic() + QUIET_S
    while True:
        after = Held.by(service)
        files, threads = (
            after.num_files - before.num_files,
            after.num_threads - before.num_threads,
        )
        if not after.work and files <= 2 and threads <= 4:
            break
        assert time.monotonic() < deadline, (after.work, files, threads)
        time.sleep(0.2)
    # A code or reason that had not been seen has a series from then on.
    new = {name.partition("[")[0] for name in after.series - before.series}
    assert new <= {"grpc_server_handled_total"}, new
    assert service.process.poll() is None
    assert "Traceback" not in service.log.read_text()


@contextmanager
def canaries(services: Services) -> Iterator[dict]:
    """Runs four streams meanwhile whose tokens are known, in a process of their own (fp32).

    Yields:
        What came of them, filled in at the end.
    """
    command = [sys.executable, "-m", "tests.integration.canary_probe"]
    addresses = [services.model.address, services.tokenizer.address]
    outcome: dict = {}
    with subprocess.Popen(
        [*command, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as probe:
        assert probe.stdout is not None
        assert probe.stdout.readline() == "ready\n"
        try:
            yield outcome
        finally:
            printed, _ = probe.communicate(timeout=300)
    outcome |= json.loads(printed)


def check_canaries(outcome: dict) -> None:
    """Checks that every stream gave its tokens, however long it had to wait for room."""
    assert outcome["failures"] == []
    assert outcome["runs"] > 0
    assert outcome["wrong"] == 0
