"""`lockstep vocab export` and `import`: the log as a file."""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich import progress

from lockstep_client._cli import options
from lockstep_client._cli.options import DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, out, print_json
from lockstep_client._cli.standard_streams import STANDARD

PIECE_BYTES = 2**20


def export(
    archive: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="File to write the archive to; `-` is standard output.",
            dir_okay=False,
        ),
    ],
    *,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Write the whole log of revisions to a file: a backup, vectors included.

    The file is there, whole and on the disk, or as it was before.
    """
    if str(archive) == STANDARD:
        _export_to_standard_output(tokenizer, tls_ca)
        return
    unfinished = archive.with_name(archive.name + ".part")
    seen = hashlib.sha256()
    try:
        with (
            connected(tokenizer=tokenizer, tls_ca=tls_ca) as client,
            unfinished.open("wb") as file,
            _progress("exporting", total=None) as bar,
        ):
            for piece in client.vocabulary.export_revisions():
                file.write(piece)
                seen.update(piece)
                bar.advance(bar.task_ids[0], len(piece))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        unfinished.replace(archive)
    except OSError as error:
        raise typer.BadParameter(f"{archive}: {error.strerror}.", param_hint="FILE") from None
    finally:
        unfinished.unlink(missing_ok=True)
    if json:
        print_json({"file": str(archive), "bytes": size, "sha256": seen.hexdigest()})
    else:
        out.print(f"{archive}: {size:,} bytes, SHA-256 {seen.hexdigest()}")


def _export_to_standard_output(tokenizer: str, tls_ca: Path | None) -> None:
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client:
        for piece in client.vocabulary.export_revisions():
            sys.stdout.buffer.write(piece)


def _pieces(file: BinaryIO, bar: progress.Progress) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        bar.advance(bar.task_ids[0], len(piece))
        yield piece


def _check_readable(archive: Path) -> Path:
    if str(archive) != STANDARD and not (archive.is_file() and os.access(archive, os.R_OK)):
        raise typer.BadParameter(f"{archive} is not a file that can be read.")
    return archive


def import_(
    archive: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Archive that `export` wrote; `-` is standard input.",
            callback=_check_readable,
        ),
    ],
    *,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Restore the log of revisions from a file, or continue a log with it.

    The archive is verified as a whole before anything is changed. Importing one
    again changes nothing.
    """
    from_input = str(archive) == STANDARD
    size = None if from_input else archive.stat().st_size
    with (
        connected(tokenizer=tokenizer, tls_ca=tls_ca) as client,
        _progress("importing", total=size) as bar,
        nullcontext(sys.stdin.buffer) if from_input else archive.open("rb") as file,
    ):
        imported = client.vocabulary.import_revisions(_pieces(file, bar))
    if json:
        print_json(imported)
        return
    ref = imported.vocabulary
    out.print(f"{imported.num_imported_revisions} of {imported.num_revisions} revisions were new.")
    out.print(f"The vocabulary is at revision {ref.revision} with {ref.size} ids.")


def _progress(what: str, total: int | None) -> progress.Progress:
    """A bar on stderr that goes away when the work is done; nothing without a terminal."""
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )
    bar.add_task(what, total=total)
    return bar
