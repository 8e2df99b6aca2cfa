"""The `lockstep` command.

Answers go to stdout and everything else to stderr, so that output can be piped.
Exit codes: 0 done, 1 a service refused, failed or cannot be reached, 2 the
command line is wrong, 130 interrupted.
"""

from typing import Annotated

import typer

from lockstep_client import __version__
from lockstep_client._cli import chat, generate, score, services, step, tokens, vocabulary

app = typer.Typer(
    name="lockstep",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate.generate)
app.command()(chat.chat)
app.command()(step.step)
app.command()(score.score)
app.command()(tokens.encode)
app.command()(tokens.decode)
app.command()(services.info)
app.command()(services.wait)
app.add_typer(vocabulary.app, name="vocab")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lockstep {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Talk to the Lockstep tokenizer and model services."""


def main() -> None:
    """Runs the command line."""
    app()
