"""Writes into the list what each mistake raises now. Read the difference before it is kept."""

import tempfile
from pathlib import Path

from tests.checkpoint_factory import make_checkpoint
from tests.integration.mistakes.mistakes import FILE, told, written
from tests.services import running_services

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_services(make_checkpoint(folder / "tiny", "llama"), folder) as services:
            FILE.write_text(written(FILE.read_text(), told(services)))
