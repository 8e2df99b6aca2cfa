"""What adding tokens did, or would do, in tables."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from lockstep_client import AddedToken, AddedTokens, TextEffect
from lockstep_client._cli.session import out
from lockstep_client._cli.token_text import render, visible_bytes


def show(tokens: Sequence[str], texts: Sequence[str], added: AddedTokens, *, dry_run: bool) -> None:
    """Prints the tokens, the effect on texts, and the state of the vocabulary."""
    table = _table("id", "token", "was encoded as", "")
    for token, result in zip(tokens, added.tokens, strict=True):
        table.add_row(
            str(result.id),
            Text(visible_bytes(token.encode())[0]),
            _pieces(result.previous_token_bytes),
            ", ".join(_remarks(result)),
        )
    out.print(table)
    for token, result in zip(tokens, added.tokens, strict=True):
        if result.changed_entries:
            shown = Text(" ").join([render(entry) for entry in result.changed_entries])
            more = result.num_changed_entries - len(result.changed_entries)
            end = f" and {more} more" if more else ""
            out.print(Text(f"{token} would change "), shown, end, sep="")
    if texts:
        out.print(_effects(added.text_effects))
    state = "would be" if dry_run else "is"
    ref = added.vocabulary
    out.print(f"The vocabulary {state} at revision {ref.revision} with {ref.size} ids.")


def _remarks(result: AddedToken) -> Iterable[str]:
    if result.existing:
        yield "becomes special" if result.becomes_special else "exists"
    if result.changes_text:
        yield "changes text"


def _effects(effects: Sequence[TextEffect]) -> Table:
    table = _table("is encoded as", "would become", "for every caller")
    for effect in effects:
        table.add_row(
            _pieces(effect.before.token_bytes),
            _pieces(effect.after.token_bytes),
            "yes" if effect.changes_text else "no",
        )
    return table


def _pieces(token_bytes: Iterable[bytes]) -> Text:
    """The pieces of a text with spaces between them: a space in a piece is visible."""
    shown = [Text(visible_bytes(piece)[0] or "∅", style="default") for piece in token_bytes]
    return Text(" ").join(shown)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
