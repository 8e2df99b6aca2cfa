"""`lockstep vocab add`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lockstep_client._cli import options
from lockstep_client._cli.options import DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, print_json
from lockstep_client._cli.standard_streams import given_lines
from lockstep_client._cli.vocabulary import new_tokens, report
from lockstep_client._cli.vocabulary.new_tokens import VALUES_HELP, Initialization, Role

_matching = partial(typer.Option, rich_help_panel="How text matches")
_rows = partial(typer.Option, rich_help_panel="Embedding rows")
_safety = partial(typer.Option, rich_help_panel="Safety")


def add(
    tokens: Annotated[
        list[str],
        typer.Argument(
            help="Texts of the tokens; `-` reads them from standard input, one a line.",
            callback=given_lines,
        ),
    ],
    *,
    special: Annotated[bool, typer.Option("--special", help="Make them control tokens.")] = False,
    role: Annotated[
        list[Role] | None,
        typer.Option(help="Give the only token this role. Can be given several times."),
    ] = None,
    single_word: Annotated[
        bool, _matching("--single-word", help="Match whole words only.")
    ] = False,
    lstrip: Annotated[bool, _matching("--lstrip", help="Swallow white space to the left.")] = False,
    rstrip: Annotated[
        bool, _matching("--rstrip", help="Swallow white space to the right.")
    ] = False,
    normalized: Annotated[
        bool | None,
        _matching(help="Match in normalized text. The opposite of --special if neither is given."),
    ] = None,
    initialize: Annotated[
        Initialization | None,
        _rows(help="How rows without vectors get their values. Default: mean-of-pieces."),
    ] = None,
    copy: Annotated[
        str | None, _rows(metavar="TOKEN", help="Copy the rows of this id or token.")
    ] = None,
    input_values: Annotated[
        Path | None,
        _rows(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help=f"Trained input vectors. {VALUES_HELP}",
        ),
    ] = None,
    output_values: Annotated[
        Path | None,
        _rows(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Trained output vectors, if they differ from the input vectors.",
        ),
    ] = None,
    generable: Annotated[
        bool | None,
        _rows(help="Whether the model may generate them. Default: only tokens with vectors."),
    ] = None,
    allow_text_changes: Annotated[
        bool,
        _safety(
            "--allow-text-changes", help="Allow tokens that change how ordinary text is encoded."
        ),
    ] = False,
    allow_unusual_characters: Annotated[
        bool,
        _safety(
            "--allow-unusual-characters",
            help="Allow invisible, bidirectional and not normalized characters.",
        ),
    ] = False,
    expected_revision: Annotated[
        int | None, _safety(min=0, metavar="N", help="Refuse unless this is the newest revision.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        _safety(
            metavar="UUID",
            help="Idempotency key: a repeated call changes nothing and gets the same answer.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, _safety("--dry-run", help="Report what would happen and change nothing.")
    ] = False,
    texts: Annotated[
        list[str] | None,
        _safety(
            "--text",
            metavar="TEXT",
            help="With --dry-run, show how this text is encoded then. Can be given several times.",
        ),
    ] = None,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Add tokens to the vocabulary of both services, as one revision."""
    roles = [one.value for one in role or []]
    if roles and len(tokens) > 1:
        raise typer.BadParameter("goes with one token.", param_hint="--role")
    if texts and not dry_run:
        raise typer.BadParameter("needs --dry-run.", param_hint="--text")
    if sum(given is not None for given in (initialize, copy, input_values)) > 1:
        raise typer.BadParameter(
            "excludes --copy and --input-values, and they exclude each other.",
            param_hint="--initialize",
        )
    flags: dict[str, Any] = {
        "special": special,
        "role": roles[0] if roles else None,
        "more_roles": roles[1:],
        "single_word": single_word,
        "lstrip": lstrip,
        "rstrip": rstrip,
        "normalized": normalized,
        "generable": generable,
        "initialization": initialize and initialize.value.replace("-", "_"),
    }
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client:
        if copy is not None:
            flags["initialization"] = "copy"
            flags["copy_token_id"] = new_tokens.id_of(client, copy, "--copy")
        added = client.vocabulary.add_tokens(
            new_tokens.new_tokens(
                tokens, flags=flags, input_values=input_values, output_values=output_values
            ),
            dry_run=dry_run,
            allow_text_changes=allow_text_changes,
            allow_unusual_characters=allow_unusual_characters,
            expected_revision=expected_revision,
            idempotency_key=idempotency_key,
            texts=texts or [],
        )
    if json:
        print_json(added)
    else:
        report.show(tokens, texts or [], added, dry_run=dry_run)
