"""Writes them, or with `--check` fails where they are behind what they are made from."""

import subprocess
import sys
from pathlib import Path

from client.generate import blocking, options, typescript, words
from client.generate.schema import Schema

CLIENT = Path(__file__).parents[1]
PACKAGE = CLIENT / "python" / "lockstep_client"
NODE = CLIENT / "node"
SERVICE_CONFIG = CLIENT.parent / "protos" / "service_config.json"
SCHEMA = Schema(
    "generation.proto",
    "model_service.proto",
    "logits_session_service.proto",
    "tokenizer_service.proto",
    "vocabulary_admin_service.proto",
)


def main(arguments: list[str]) -> int:
    """Runs the command line; returns its exit code."""
    texts = _texts()
    written = [*(PACKAGE / blocking.TARGET).glob("*.py"), *texts]
    present = {path: path.read_text() for path in written if path.exists()}
    behind = [path for path in {**present, **texts} if present.get(path) != texts.get(path)]
    if "--check" in arguments:
        for path in behind:
            print(f"{path.relative_to(CLIENT)} is not what it is made from: run `make client`.")
        return 1 if behind else 0
    for path in behind:
        if path in texts:
            path.parent.mkdir(exist_ok=True)
            path.write_text(texts[path])
        else:
            path.unlink()
    return 0


def _texts() -> dict[Path, str]:
    """Returns the text of every generated module by its path."""
    keywords = options.generate(SCHEMA)
    python = {
        PACKAGE / path: text for path, text in {**blocking.generate(PACKAGE), **keywords}.items()
    }
    node = {**typescript.generate(keywords[options.TARGET], SCHEMA), **words.generate(PACKAGE)}
    return {
        **{path: _formatted(text, path) for path, text in python.items()},
        **{NODE / path: text for path, text in node.items()},
        PACKAGE / "_transport" / SERVICE_CONFIG.name: SERVICE_CONFIG.read_text(),
    }


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
