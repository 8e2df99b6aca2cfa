"""Writes them, or with `--check` fails where they are behind what they are made from."""

import sys
from pathlib import Path

from client.generate import blocking

PACKAGE = Path(__file__).parents[1] / "python" / "lockstep_client"


def main(arguments: list[str]) -> int:
    """Runs the command line; returns its exit code."""
    texts = blocking.generate(PACKAGE)
    present = set((PACKAGE / blocking.TARGET).glob("*.py"))
    behind = [
        path for path, text in texts.items() if path not in present or path.read_text() != text
    ]
    left_over = present - texts.keys()
    if "--check" in arguments:
        for path in [*behind, *left_over]:
            print(f"{path.relative_to(Path.cwd())} is not what it is made from: run `make client`.")
        return 1 if behind or left_over else 0
    for path in left_over:
        path.unlink()
    for path in behind:
        path.parent.mkdir(exist_ok=True)
        path.write_text(texts[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
