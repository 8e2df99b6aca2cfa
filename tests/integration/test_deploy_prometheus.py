"""Every query of dashboards and rules, run by a real Prometheus that scrapes both services.

With `LOCKSTEP_PICTURES=docs/pictures/boards` it draws the pictures of the pages again.
"""

import json
import math
import os
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry import trace

from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import filled_in
from deploy.grafana.pictures import Answers, draw_all
from deploy.local.stack import Stack
from lockstep_client import Lockstep
from lockstep_client.exceptions import LockstepError
from tests.checkpoint_factory import make_checkpoint
from tests.integration.test_deploy_monitoring import (
    ALERTS,
    EXPRESSIONS,
    FREE_PORTS,
    PROMETHEUS,
    RECORDED,
)
from tests.ports import free_port

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

LOAD_S = 45.0
SPAN = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(1))
PROMPT = "The capital of France is Paris, and the capital of Italy is"


class Prometheus:
    """A server that scrapes every second."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **arguments: object) -> Any:
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def numbers(self, expression: str, start: float) -> list[float]:
        """Returns every number that an expression had since a time."""
        arguments = {"query": expression, "start": start, "end": time.time(), "step": 1}
        series = self.ask("query_range", **arguments)["result"]
        values = [float(value) for one in series for _, value in one["values"]]
        return [value for value in values if not math.isnan(value)]

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                if self.ask("query", query=expression)["result"]:
                    return
            assert time.monotonic() < deadline, expression
            time.sleep(0.2)


@contextmanager
def scraping(folder: Path, stack: Stack) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    assert program, "This test needs Prometheus: on Debian and Ubuntu, apt-get install prometheus."
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "rules.yml")]
    for job, address in zip(config["scrape_configs"], (stack.tokenizer, stack.model), strict=True):
        job["static_configs"] = [{"targets": [f"{address.host}:{address.metrics_port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    flags = (
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    )
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([program, *flags], stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def load(stack: Stack) -> Iterator[Counter[str]]:
    """Keeps both services at work of all kinds, also with what they refuse."""
    stop = threading.Event()
    lockstep = Lockstep(tokenizer=stack.tokenizer.target, model=stack.model.target)
    batch = lockstep.tokenizer.encode([PROMPT])
    ends: Counter[str] = Counter()

    def sessions() -> None:
        with lockstep.model.open_session([[5, 6, 7, 8]], max_length=100) as session:
            session.step([[1]])
            with session.step_stream() as steps:
                steps.step([[2]])

    def grow() -> None:
        lockstep.vocabulary.add_tokens([f"<new-{time.monotonic_ns()}>"])

    def traced() -> None:
        with trace.use_span(trace.NonRecordingSpan(SPAN)):
            lockstep.generate(PROMPT, max_new_tokens=4)

    works: dict[str, tuple[float, Callable[[], object]]] = {
        "text": (0.05, lambda: lockstep.generate(PROMPT, max_new_tokens=24)),
        "burst": (0.5, lambda: lockstep.model.generate([[5]] * 8, max_new_tokens=30)),
        "urgent": (0.7, lambda: lockstep.model.generate([[5]] * 2, max_new_tokens=40, priority=-5)),
        "scores": (
            0.5,
            lambda: lockstep.model.generate(batch, max_new_tokens=4, output_logits=True),
        ),
        "drafts": (
            0.2,
            lambda: lockstep.model.generate(
                batch, max_new_tokens=24, do_sample=False, prompt_lookup_num_tokens=4
            ),
        ),
        "sessions": (0.2, sessions),
        "traced": (0.5, traced),
        "beams": (1.0, lambda: lockstep.model.generate(batch, max_new_tokens=4, num_beams=2)),
        "grow": (2.0, grow),
        "too long": (0.5, lambda: lockstep.model.generate([[5] * 300], max_new_tokens=8)),
        "wrong": (0.5, lambda: lockstep.model.generate(batch, temperature=-1.0)),
    }

    def repeat(name: str) -> None:
        pause_s, work = works[name]
        while not stop.wait(pause_s):
            try:
                work()
                ends[f"{name}: ok"] += 1
            except LockstepError as error:
                ends[f"{name}: {type(error).__name__}"] += 1

    threads = [threading.Thread(target=repeat, args=(name,)) for name in works]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        lockstep.close()


def test_every_query_has_an_answer_while_both_services_work(tmp_path):
    limits = ("--max-running-sequences", "4", "--max-waiting-sequences", "4")
    limits += ("--max-sequences-per-call", "8")
    sizes = ("--max-kv-tokens", "1024", "--max-context-tokens", "256")
    stack = Stack(
        tmp_path / "logs",
        model=str(make_checkpoint(tmp_path / "checkpoint", "llama")),
        tokenizer_flags=(*FREE_PORTS, "--store", f"sqlite:///{tmp_path}/vocabulary.db"),
        model_flags=(*FREE_PORTS, *limits, *sizes, "--decode-graphs", "off"),
    )
    pictures = Path(os.environ.get("LOCKSTEP_PICTURES", tmp_path / "pictures"))
    start = time.time()
    with stack, scraping(tmp_path, stack) as prometheus:
        for job in ("lockstep-tokenizer", "lockstep-model"):
            prometheus.wait_for(f'up{{job="{job}"}} == 1')
        with load(stack) as ends:
            time.sleep(LOAD_S)
            end = time.time()
            values = {
                name: prometheus.numbers(filled_in(expression, "15s"), start)
                for name, expression in EXPRESSIONS.items()
            }
        draw_all(Answers(prometheus.url, end - LOAD_S, end, "15s"), pictures)
        first_tokens = "lockstep_model_time_to_first_token_seconds_bucket"
        found = prometheus.ask("query_exemplars", query=first_tokens, start=start, end=end)
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    print(f"{len(values)} queries, {sum(map(len, values.values()))} numbers, {dict(ends)}")
    # Alerts have an answer when something is wrong, and nothing expires without TLS.
    silent = set(ALERTS) | {name for name in EXPRESSIONS if "certificate" in name}
    assert [name for name, found in values.items() if not found and name not in silent] == []
    assert {rule["health"] for rule in rules} == {"ok"}
    assert {rule["name"] for rule in rules} == RECORDED | set(ALERTS)
    traces = {each["labels"]["trace_id"] for series in found for each in series["exemplars"]}
    assert traces == {trace.format_trace_id(SPAN.trace_id)}
    assert {path.stem for path in pictures.iterdir()} == {board.name for board in BOARDS}
