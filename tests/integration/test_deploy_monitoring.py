"""Dashboards, rules and scrape file, against what two real services expose."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.__main__ import ANNOTATIONS, FOLDER, render
from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import VARIABLES, filled_in
from deploy.local.stack import Stack
from lockstep_client import Lockstep
from model_service.front.settings import ModelSettings
from tests.checkpoint_factory import make_checkpoint
from tokenizer_service.settings import TokenizerSettings

PROMETHEUS = FOLDER.parents[1] / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
FREE_PORTS = ("--port", "0", "--health-port", "0", "--metrics-port", "0")

SCENARIOS = Path(__file__).with_name("alerts.yml")
RUNBOOKS = FOLDER.parents[2] / "docs" / "operations.md"

# Added by Prometheus when it scrapes, the last two in Kubernetes only.
TARGET_LABELS = {"instance", "job", "namespace", "pod"}
# Made by Prometheus for each target.
TARGET_METRICS = {"up", "ALERTS"}
COUNTER_FUNCTIONS = {"rate", "increase", "irate"}


@dataclass
class Usage:
    """What one expression reads: metric to labels, and metrics taken as counters."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)


def read(expression: str) -> Usage:
    usage = Usage()
    _visit(promql_parser.parse(filled_in(expression, "10s")), usage, set(), counter=False)
    return usage


def _visit(node: Any, usage: Usage, grouping: set[str], *, counter: bool) -> None:
    match node:
        case promql_parser.VectorSelector():
            matched = {matcher.name for matcher in node.matchers.matchers}
            usage.labels.setdefault(node.name, set()).update(matched | grouping)
            if counter:
                usage.counters.add(node.name)
        case promql_parser.MatrixSelector():
            _visit(node.vector_selector, usage, grouping, counter=counter)
        case promql_parser.AggregateExpr():
            labels = set(node.modifier.labels) if node.modifier else set()
            _visit(node.expr, usage, grouping | labels, counter=counter)
        case promql_parser.BinaryExpr():
            _visit(node.lhs, usage, grouping, counter=counter)
            matching = node.modifier.matching if node.modifier else None
            if matching and str(node.op) in {"and", "unless"}:  # the right side gives no labels
                grouping = set(matching.labels)
            _visit(node.rhs, usage, grouping, counter=counter)
        case promql_parser.Call():
            for argument in node.args:
                _visit(argument, usage, grouping, counter=node.func.name in COUNTER_FUNCTIONS)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            _visit(node.expr, usage, grouping, counter=counter)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            pass
        case _:
            raise TypeError(f"{type(node).__name__} is not read here yet.")


def expressions() -> Iterator[tuple[str, str]]:
    """Gives every expression of the dashboards and the rules, with a name for it."""
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                for index, query in enumerate(panel.queries):
                    yield f"{board.name}: {panel.title} {index}", query.expression
    for name, _, query in VARIABLES:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert found, query
        yield f"variable {name}", f"sum by ({found[2]}) ({found[1]})"
    for name, expression, _ in ANNOTATIONS:
        yield f"annotation {name}", expression
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


EXPRESSIONS = dict(expressions())
ALERTS = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
}
RECORDED = {
    rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule
}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, set[str]]]:
    """Gives type and labels of every sample that both services expose after some traffic."""
    folder = tmp_path_factory.mktemp("monitoring")
    checkpoint = make_checkpoint(folder / "checkpoint", "llama")
    stack = Stack(
        folder / "logs",
        model=str(checkpoint),
        tokenizer_flags=(*FREE_PORTS, "--store", f"sqlite:///{folder}/vocabulary.db"),
        model_flags=FREE_PORTS,
    )
    samples: dict[str, tuple[str, set[str]]] = {}
    with stack:
        with Lockstep(tokenizer=stack.tokenizer.target, model=stack.model.target) as lockstep:
            batch = lockstep.tokenizer.encode(["The capital of France is", "One"])
            out = lockstep.model.generate(batch, max_new_tokens=4, output_logits=True)
            lockstep.tokenizer.decode(out.sequences[0])
            lockstep.vocabulary.add_tokens(["<new>"])
            with lockstep.model.open_session(batch) as session:
                session.step([[1], [1]])
            grown = lockstep.tokenizer.encode("<new>")
            lockstep.model.generate(grown, max_new_tokens=1)  # waits for the new revision
        for address in (stack.tokenizer, stack.model):
            url = f"http://{address.host}:{address.metrics_port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as response:
                text = response.read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = samples.setdefault(sample.name, (family.type, set()))[1]
                    labels.update(sample.labels)
    return samples


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_expression_reads_metrics_and_labels_that_exist(name, exposed):
    usage = read(EXPRESSIONS[name])
    assert usage.labels, "no metric is read"
    for metric, labels in usage.labels.items():
        if metric in RECORDED | TARGET_METRICS:
            continue
        assert metric in exposed, f"{metric} is exposed by neither service"
        assert labels - TARGET_LABELS <= exposed[metric][1], metric


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_rates_are_taken_of_counters_only(name, exposed):
    for metric in read(EXPRESSIONS[name]).counters:
        kind = exposed[metric][0]
        assert kind in {"counter", "histogram"}, f"{metric} is a {kind}"


def test_an_expression_that_names_no_metric_of_ours_is_found(exposed):
    usage = read('sum by (method) (rate(grpc_server_handled_total{status="OK"}[5m]))')
    assert usage.labels == {"grpc_server_handled_total": {"method", "status"}}
    assert not usage.labels["grpc_server_handled_total"] <= exposed["grpc_server_handled_total"][1]
    assert "vllm_requests" not in exposed


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
class TestBoard:
    @pytest.fixture
    def written(self, board):
        return json.loads((FOLDER / f"{board.name}.json").read_text())

    @pytest.fixture
    def panels(self, written):
        return [panel for panel in written["panels"] if panel["type"] != "row"]

    def test_it_is_what_the_code_gives(self, board):
        assert (FOLDER / f"{board.name}.json").read_text() == render(board), "Run `make docs`."

    def test_every_panel_says_what_it_shows_from_a_source_that_the_reader_chooses(
        self, written, panels
    ):
        assert {each["type"] for each in written["templating"]["list"]} == {"datasource", "query"}
        for panel in panels:
            assert panel["title"]
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(each["datasource"]["uid"] == "${datasource}" for each in panel["targets"])
            assert all(each["legendFormat"] for each in panel["targets"])
        ids = [panel["id"] for panel in written["panels"]]
        titles = [panel["title"] for panel in panels]
        assert len(set(ids)) == len(ids)
        assert len(set(titles)) == len(titles)

    def test_the_lines_of_a_panel_have_names_of_their_own(self, panels):
        for panel in panels:
            legends = [target["legendFormat"] for target in panel["targets"]]
            assert len(set(legends)) == len(legends), panel["title"]

    def test_panels_do_not_overlap(self, written):
        cells = set()
        for panel in written["panels"]:
            place = panel["gridPos"]
            taken = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in taken) < 24
            cells |= taken


def test_no_file_is_left_of_a_dashboard_that_is_gone():
    assert {path.stem for path in FOLDER.iterdir()} == {board.name for board in BOARDS}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_where_it_says_what_to_do(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
    assert f"\n### {name}\n" in RUNBOOKS.read_text()


def promtool(*arguments: str, folder: Path) -> None:
    """Runs Prometheus' own tool, which has to find nothing wrong."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail(
            "This test needs promtool: install Prometheus (on Debian and Ubuntu, "
            "`apt-get install prometheus`). .ci/run does."
        )
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_scrape_file_and_the_rules():
    promtool("check", "config", "prometheus.yml", folder=PROMETHEUS)
    promtool("check", "rules", "--lint-fatal", "rules.yml", folder=PROMETHEUS)


def test_alerts_fire_when_they_should_and_only_then(tmp_path):
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)  # else each scenario would have to repeat them
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    shutil.copy(SCENARIOS, tmp_path)
    promtool("test", "rules", SCENARIOS.name, folder=tmp_path)


def test_every_alert_has_a_scenario_in_which_it_fires():
    scenarios = yaml.safe_load(SCENARIOS.read_text())["tests"]
    checks = [check for scenario in scenarios for check in scenario["alert_rule_test"]]
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == set(ALERTS)


def test_the_scrape_file_looks_where_the_services_are():
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    assert targets == {
        "lockstep-tokenizer": f"localhost:{TokenizerSettings().metrics_port}",
        "lockstep-model": f"localhost:{ModelSettings().metrics_port}",
    }
    assert all((PROMETHEUS / name).is_file() for name in config["rule_files"])
