"""The program `lockstep`: the command line, where what it draws with is installed."""

import sys


def main() -> None:
    """Runs the command line, or says what to install for it."""
    try:
        from lockstep_client import _cli
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("rich", "typer"):
            raise
        install = "pip install 'lockstep-client[cli]'"
        sys.exit(f"lockstep: The command line needs {package}: {install}")
    _cli.main()
