"""Tables of settings, from the fields of the settings classes and their docstrings."""

from pydantic.fields import FieldInfo

from rpc.settings import ServerSettings


def settings_table(settings: type[ServerSettings]) -> str:
    """Returns one row per setting: flag, variable, default and meaning."""
    prefix = settings.model_config.get("env_prefix", "")
    rows = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        if not meaning:
            raise ValueError(f"{settings.__name__}.{name} has no docstring.")
        rows.append(f"| `{flag}` | `{prefix}{name.upper()}` | {_default(field)} | {meaning} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    if field.default is None:
        return "none"
    return f"`{str(field.default).lower() if field.default in (True, False) else field.default}`"
