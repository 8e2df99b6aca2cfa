"""`lockstep vocab log` and `verify`."""

import typer
from rich.table import Table

from lockstep_client._cli import options
from lockstep_client._cli.options import DEFAULT_TOKENIZER
from lockstep_client._cli.session import EXIT_FAILED, connected, out, print_json


def log(
    *,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """List the revisions of the vocabulary, oldest first."""
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client:
        revisions = list(client.vocabulary.revisions())
    if json:
        print_json({"revisions": revisions})
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("revision", "time (UTC)", "fingerprint", "ids", "added"):
        table.add_column(column, overflow="fold")
    for revision in revisions:
        ref, time = revision.vocabulary, revision.create_time
        added = [f"{token_id} {content!r}" for token_id, content in revision.tokens.items()]
        roles = [f"{role} = {token_id}" for role, token_id in revision.special_tokens.items()]
        table.add_row(
            str(ref.revision),
            "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}",
            ref.fingerprint[:12],
            str(ref.size),
            ", ".join(added + roles),
        )
    out.print(table)


def verify(
    *,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Recompute the chain of revisions from the store and compare every fingerprint."""
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client:
        verification = client.vocabulary.verify()
    if json:
        print_json(verification)
    elif verification.valid:
        out.print(f"[green]✓[/] {verification.revision_count} revisions, all as they were written.")
    else:
        out.print(f"[red]✗[/] Revision {verification.first_invalid_revision} is not what it was.")
    if not verification.valid:
        raise typer.Exit(EXIT_FAILED)
