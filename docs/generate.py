"""Writes the tables in `docs/` that come from the code and the schema.

Each stands between two marks in a page that is otherwise written by hand:

    <!-- generated: NAME -->
    <!-- end -->

Run `python -m docs.generate`; a test fails when a page is behind.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.rpc import code_pb2
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from rpc import status
from rpc.metrics import RpcMetrics

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


def metrics_table(registry: CollectorRegistry) -> str:
    """One row per metric in the registry. A metric shows labels once it has a series."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in sorted(registry.collect(), key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in _labels(family)) or "none"
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows)


def _labels(family: Metric) -> list[str]:
    return sorted({label for sample in family.samples for label in sample.labels} - {"le"})


TABLES: dict[str, Callable[[], str]] = {
    "errors": errors_table,
    "rpc-metrics": rpc_metrics_table,
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
