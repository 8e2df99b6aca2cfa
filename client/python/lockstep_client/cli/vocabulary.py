"""`lockstep vocab`: add tokens, and look at the log of revisions."""

from typing import Annotated

import typer
from rich.table import Table

from lockstep_client.cli import options
from lockstep_client.cli.options import DEFAULT_TOKENIZER
from lockstep_client.cli.session import EXIT_FAILED, connected, out, print_json

app = typer.Typer(help="Add tokens, and look at the log of revisions.", no_args_is_help=True)


@app.command()
def add(
    tokens: Annotated[list[str], typer.Argument(help="Texts of the tokens.")],
    *,
    special: Annotated[bool, typer.Option("--special", help="Make them control tokens.")] = False,
    allow_text_changes: Annotated[
        bool,
        typer.Option(
            "--allow-text-changes", help="Allow tokens that change how ordinary text is encoded."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would happen and change nothing.")
    ] = False,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Add tokens to the vocabulary of both services, as one revision."""
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client:
        added = client.vocabulary.add_tokens(
            tokens, special=special, allow_text_changes=allow_text_changes, dry_run=dry_run
        )
    if json:
        print_json(added)
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("id", "token", "was encoded as", ""):
        table.add_column(column, overflow="fold")
    for token, result in zip(tokens, added.tokens, strict=True):
        remarks = ["exists"] * result.existing + ["changes text"] * result.changes_text
        pieces = " ".join(map(str, result.previous_ids))
        table.add_row(str(result.id), repr(token), pieces, ", ".join(remarks))
    out.print(table)
    state = "would be" if dry_run else "is"
    ref = added.vocabulary
    out.print(f"The vocabulary {state} at revision {ref.revision} with {ref.size} ids.")


@app.command()
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


@app.command()
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
