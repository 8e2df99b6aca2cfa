"""Writes the tables in `docs/` that come from the code and the schema.

Each stands between two marks in a page that is otherwise written by hand:

    <!-- generated: NAME -->
    <!-- end -->

Run `python -m docs.generate`; a test fails when a page is behind.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.rpc import code_pb2
from prometheus_client import CollectorRegistry

from docs.client_names import client_names_table
from docs.field_limits import field_limits_table
from docs.hugging_face import hugging_face_table, processors_table
from docs.modules import PACKAGES, modules_list, table_name
from docs.roles import roles_table
from docs.settings import settings_table
from model_service.front.metrics import ModelMetrics
from model_service.front.settings import ModelSettings
from rpc import status
from rpc.metrics import RpcMetrics
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.settings import TokenizerSettings

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "ERROR_REASON_"

_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_VALUE = re.compile(rf"((?: *//.*\n)+) *{PREFIX}(\w+) = (\d+);")


@dataclass(frozen=True, slots=True)
class Reason:
    """What `error_reason.proto` says about one reason.

    Attributes:
        name: without the prefix of the enum.
        meaning: the first paragraph.
        code: name of the gRPC code.
        retryable: whether `RetryInfo` comes with it.
        metadata: keys of `ErrorInfo.metadata`.
    """

    name: str
    meaning: str
    code: str
    retryable: bool
    metadata: tuple[str, ...]


def reasons() -> Iterator[Reason]:
    """Reads the schema's comments, in the order of the values' numbers."""
    text = (ROOT / "protos/lockstep/v1/error_reason.proto").read_text()
    for comment, name, number in _VALUE.findall(text):
        if number == "0":
            continue
        lines = [line.strip().removeprefix("//").strip() for line in comment.splitlines()]
        meaning, _, contract = " ".join(line or "\n" for line in lines).partition(" \n ")
        found = re.search(r"Code: `(\w+)`(.*?) Metadata: (.*)", contract)
        assert found, f"{name} lacks `Code:` or `Metadata:`."
        code, retry, metadata = found.groups()
        keys = re.sub(r"\([^)]*\)", "", metadata).partition(".")[0]
        yield Reason(
            name=name,
            meaning=meaning,
            code=code,
            retryable="with `RetryInfo`" in retry,
            metadata=tuple(re.findall(r"`(\w+)`", keys)),
        )


def errors_table() -> str:
    """One row per reason."""
    rows = ["| reason | code | retry | metadata | meaning |", "|---|---|---|---|---|"]
    codes = {reason: code_pb2.Code.Name(code) for code, reason in status.TABLE.values()}
    for reason in reasons():
        keys = ", ".join(f"`{key}`" for key in reason.metadata) or "none"
        retry = "yes" if reason.retryable else "no"
        rows.append(
            f"| `{reason.name}` | `{codes[reason.name]}` | {retry} | {keys} | {reason.meaning} |"
        )
    return "\n".join(rows)


def rpc_metrics_table() -> str:
    """One row per metric that every service has for its RPCs."""
    registry = CollectorRegistry()
    RpcMetrics(registry, [])
    return metrics_table(registry)


def tokenizer_metrics_table() -> str:
    """One row per metric of the tokenizer service, except the metrics of its RPCs."""
    registry = CollectorRegistry()
    TokenizerMetrics(registry, "")
    return metrics_table(registry)


def model_metrics_table() -> str:
    """One row per metric of the model service, except the metrics of its RPCs."""
    registry = CollectorRegistry()
    ModelMetrics(registry, "")
    return metrics_table(registry)


def metrics_table(registry: CollectorRegistry) -> str:
    """One row per metric in the registry."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    # A metric without a series shows no labels yet, so the collectors themselves are asked.
    collectors: Iterable[Any] = registry._collector_to_names  # no public way leads to them
    for collector in sorted(collectors, key=lambda each: next(iter(each.describe())).name):
        family = next(iter(collector.describe()))
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        names = sorted(getattr(collector, "_labelnames", ()))
        labels = ", ".join(f"`{label}`" for label in names) or "none"
        row = f"`{family.name}{suffix}` | {family.type} | {labels} | {family.documentation}"
        rows.append(f"| {row} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "client-names": client_names_table,
    "errors": errors_table,
    "field-limits": field_limits_table,
    "hugging-face": hugging_face_table,
    "processors": processors_table,
    "roles": roles_table,
    "rpc-metrics": rpc_metrics_table,
    "tokenizer-metrics": tokenizer_metrics_table,
    "model-metrics": model_metrics_table,
    "tokenizer-settings": partial(settings_table, TokenizerSettings),
    "model-settings": partial(settings_table, ModelSettings),
    **{table_name(package): partial(modules_list, package) for package in PACKAGES},
}


def generated(page: str) -> str:
    """Returns the page with every table as it should be."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}", page)


def pages() -> list[Path]:
    """Finds the pages that hold a generated table."""
    return [
        page for page in sorted((ROOT / "docs").glob("*.md")) if _BLOCK.search(page.read_text())
    ]


def main() -> None:
    """Rewrites every page that holds a generated table."""
    for page in pages():
        page.write_text(generated(page.read_text()))


if __name__ == "__main__":
    main()
