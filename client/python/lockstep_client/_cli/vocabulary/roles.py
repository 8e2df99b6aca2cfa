"""`lockstep vocab set-special`."""

from typing import Annotated

import typer

from lockstep_client._cli import options
from lockstep_client._cli.options import DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, out, print_json
from lockstep_client._cli.vocabulary.new_tokens import Role, id_of


def set_special(
    roles: Annotated[
        list[str],
        typer.Argument(
            metavar="ROLE=TOKEN...", help="A role and the id or the spelling of its token."
        ),
    ],
    *,
    expected_revision: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Refuse unless this is the newest revision."),
    ] = None,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Give roles, such as pad and eos, to tokens that exist, as one revision."""
    wanted = dict(_read(role) for role in roles)
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client:
        ids = {role: id_of(client, token, "ROLE=TOKEN") for role, token in wanted.items()}
        ref = client.vocabulary.set_special_tokens(ids, expected_revision=expected_revision)
    if json:
        print_json({"special_tokens": ids, "vocabulary": ref})
    else:
        for role, token_id in ids.items():
            out.print(f"{role} is {token_id}.")
        out.print(f"The vocabulary is at revision {ref.revision} with {ref.size} ids.")


def _read(assignment: str) -> tuple[str, str]:
    role, separator, token = assignment.partition("=")
    if not separator or not token or role not in tuple(Role):
        known = ", ".join(Role)
        raise typer.BadParameter(
            f"{assignment!r} is not ROLE=TOKEN with a role of {known}.", param_hint="ROLE=TOKEN"
        )
    return role, token
