"""The distribution that this code is published as, and which version of it is installed."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

NAME: Final = "lockstep-services"
"""As in `pyproject.toml`. `lockstep` is another project's on PyPI."""


def installed(distribution: str = NAME) -> str:
    """Returns the version of a distribution, our own by default; `unknown` if not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
