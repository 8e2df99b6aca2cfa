"""Writes them, or with `--check` fails where they are behind what they are made from."""

import subprocess
import sys
from pathlib import Path

from client.generate import blocking, options

PACKAGE = Path(__file__).parents[1] / "python" / "lockstep_client"


def main(arguments: list[str]) -> int:
    """Runs the command line; returns its exit code."""
    texts = {**blocking.generate(PACKAGE), **options.generate(PACKAGE)}
    texts = {path: _formatted(text, path) for path, text in texts.items()}
    written = [*(PACKAGE / blocking.TARGET).glob("*.py"), PACKAGE / options.TARGET]
    present = {path: path.read_text() for path in written if path.exists()}
    behind = [path for path in {**present, **texts} if present.get(path) != texts.get(path)]
    if "--check" in arguments:
        for path in behind:
            print(f"{path.relative_to(PACKAGE)} is not what it is made from: run `make client`.")
        return 1 if behind else 0
    for path in behind:
        if path in texts:
            path.parent.mkdir(exist_ok=True)
            path.write_text(texts[path])
        else:
            path.unlink()
    return 0


def _formatted(text: str, path: Path) -> str:
    """Sorts imports and drops those left over, joins what blocking code can, and formats."""
    for command in ("check --fix --unsafe-fixes --quiet --select I,F401,SIM117,UP028", "format -q"):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command.split(), "--stdin-filename", path, "-"],
            input=text,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
