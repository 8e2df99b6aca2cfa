"""`lockstep vocab`: grow the vocabulary, and look at, back up and restore its log."""

import typer

from lockstep_client._cli.vocabulary import add, archive, reset, revisions, roles

app = typer.Typer(
    help="Grow the vocabulary, and look at, back up and restore its log.", no_args_is_help=True
)
app.command()(add.add)
app.command("set-special")(roles.set_special)
app.command()(revisions.log)
app.command()(revisions.verify)
app.command()(archive.export)
app.command("import")(archive.import_)
app.command()(reset.reset)
