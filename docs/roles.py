"""The table of roles: what each is for, and the methods that ask for it."""

from rpc.identity.roles import MEANINGS, POLICY, Role


def roles_table() -> str:
    """Returns one row per role."""
    rows = ["| role | lets a caller | methods |", "|---|---|---|"]
    for role in Role:
        methods = sorted(
            f"{service.rpartition('.')[2]}.{method}"
            for service, method in (path[1:].split("/") for path, r in POLICY.items() if r is role)
        )
        names = ", ".join(f"`{name}`" for name in methods) or "`GET /metrics`"
        rows.append(f"| `{role}` | {MEANINGS[role]} | {names} |")
    return "\n".join(rows)
