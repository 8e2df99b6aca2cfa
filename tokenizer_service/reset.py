"""`python -m tokenizer_service.reset`: begins the vocabulary of a stopped service again.

It takes the flags and the variables of the service, so that it finds the same store. The file is
set aside, and the service makes a new one when it starts.
"""

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import checkpoints
from tokenizer_service.settings import TokenizerSettings
from tokenizer_service.store import StoreError, durable_folder
from tokenizer_service.store.database import file_of, parse_url

EXIT_FAILED = 1
EXIT_UNSAID = 2


def set_aside(file: Path) -> Path:
    """Renames the file of a store that no service has open, and returns its new name.

    Raises:
        OSError: it cannot be renamed.
        StoreError: it is in use, or cannot be read.
    """
    kept = file.with_name(f"{file.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    try:
        # Also plays back a journal, without which the file alone would be of no use.
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=0)) as store:
            store.execute("BEGIN EXCLUSIVE")
            file.rename(kept)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise StoreError(f"The store {file} cannot be opened ({error}).") from None
        raise StoreError(f"The store {file} is in use: stop its tokenizer service first.") from None
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{file} is no store, or is damaged ({error}); move it yourself."
        ) from None
    durable_folder.sync(file.parent)
    return kept


def reset(settings: TokenizerSettings, *, sure: bool) -> int:
    """Sets the store aside that settings name. Returns the exit code.

    Args:
        settings: the service's.
        sure: whether it is to be done; otherwise it is said only.

    Raises:
        CheckpointError: the model is not found.
        OSError: the file cannot be renamed.
        StoreError: the store is in use, or is no file.
    """
    checkpoint = checkpoints.resolve(settings.model, need="tokenizer")
    file = file_of(parse_url(settings.store_url(settings.id_for(checkpoint.name))))
    if file is None:
        raise StoreError(
            "Only a store in a file can be reset here; give the service another database or schema."
        )
    if not file.exists():
        print(f"There is nothing to reset: {file} does not exist.")
        return 0
    if not sure:
        print(f"This sets {file} aside, with all revisions. Say --yes to do it.", file=sys.stderr)
        return EXIT_UNSAID
    kept = set_aside(file)
    print(f"The vocabulary begins again at revision 0 when the services are started.\nKept: {kept}")
    return 0


def main() -> int:
    """Reads the settings and `--yes`."""
    flags = sys.argv[1:]
    settings = TokenizerSettings.from_command_line([flag for flag in flags if flag != "--yes"])
    try:
        return reset(settings, sure="--yes" in flags)
    except (checkpoints.CheckpointError, StoreError, OSError) as error:
        print(f"python -m tokenizer_service.reset: {error}", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
