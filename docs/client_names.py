"""What the Python client exports, as a table."""

import inspect

import lockstep_client


def client_names_table() -> str:
    """One row per name of `lockstep_client`, with the first sentence of its documentation."""
    rows = ["| name | |", "|---|---|"]
    for name in lockstep_client.__all__:
        text = inspect.getdoc(getattr(lockstep_client, name)) or ""
        summary = " ".join(text.partition("\n\n")[0].split())
        rows.append(f"| `{name}` | {summary.partition('. ')[0].removesuffix('.')} |")
    return "\n".join(rows)
