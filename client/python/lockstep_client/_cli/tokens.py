"""`lockstep encode` and `lockstep decode`."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from lockstep_client import Batch, Lockstep, VocabularyEntry
from lockstep_client._calls.argument import Argument
from lockstep_client._cli import options, token_text
from lockstep_client._cli.options import DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, out, print_json
from lockstep_client._cli.standard_streams import given_texts

MANY_TEXTS: Final = 64
"""Above it a bar shows on a terminal how many are done."""


class Side(StrEnum):
    """Where padding goes."""

    LEFT = "left"
    RIGHT = "right"


def encode(
    texts: Annotated[
        list[str],
        typer.Argument(
            help="Texts; each becomes one row. `-` reads standard input.", callback=given_texts
        ),
    ],
    *,
    special: Annotated[
        bool,
        typer.Option("--special", help="Read special tokens spelled in the text as tokens."),
    ] = False,
    add_special_tokens: Annotated[
        bool, typer.Option(help="Add the tokenizer's own tokens, such as BOS.")
    ] = True,
    pad: Annotated[Side | None, typer.Option(help="Pad rows to the longest, on this side.")] = None,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Turn texts into token ids, and show which text each id stands for."""
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client:
        batch = client.tokenizer.encode(
            texts,
            parse_special_tokens=special,
            add_special_tokens=add_special_tokens,
            padding="longest" if pad else False,
            padding_side=pad.value if pad else "left",
            progress=notes.is_terminal and len(texts) > MANY_TEXTS,
        )
        if json:
            print_json(_json(batch))
            return
        for row in range(len(batch.token_ids)):
            _print_row(client, batch, row)
        notes.print(f"[dim]{sum(map(len, batch.token_ids))} tokens · {_vocabulary(batch)}[/]")


def decode(
    token_ids: Annotated[
        list[str],
        typer.Argument(
            metavar="ID",
            help="Ids of one sequence; `-` reads them from standard input.",
            callback=given_texts,
        ),
    ],
    *,
    keep_special: Annotated[
        bool, typer.Option("--keep-special", help="Print special tokens too.")
    ] = False,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    tls_ca: options.TlsCa = None,
) -> None:
    """Turn token ids into text."""
    ids = [_id(word) for text in token_ids for word in text.replace(",", " ").split()]
    with connected(tokenizer=tokenizer, tls_ca=tls_ca) as client, Argument("ID").named():
        (row,) = client.tokenizer.decode_rows(
            ids or [[]], skip_special_tokens=not keep_special, check_round_trip=json
        )
        if json:
            print_json({"text": row.text, "round_trip": row.round_trip})
        else:
            print(row.text)


def _id(word: str) -> int:
    if not word.isdecimal():
        raise typer.BadParameter(f"{word!r} is not an id.", param_hint="ID")
    return int(word)


def _json(batch: Batch) -> dict[str, object]:
    answer: dict[str, object] = {"token_ids": batch.token_ids, "vocabulary": batch.vocabulary}
    if batch.padded is not None:
        for name in ("input_ids", "attention_mask", "position_ids"):
            answer[name] = getattr(batch, name).tolist()
    return answer


def _print_row(client: Lockstep, batch: Batch, row: int) -> None:
    ids, mask, positions = batch.token_ids[row], None, None
    if batch.padded is not None:
        ids = batch.input_ids[row].tolist()
        mask, positions = batch.attention_mask[row].tolist(), batch.position_ids[row].tolist()
    if not ids:
        notes.print("[dim]no tokens[/]")
        return
    entries = token_text.entries(client, ids)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    table.add_column("token")
    for name in ("id", "mask", "position") if mask and positions else ("id",):
        table.add_column(name, justify="right")
    for index, entry in enumerate(entries):
        cells = [str(entry.id)]
        if mask and positions:
            cells += [str(mask[index]), str(positions[index])]
        is_padding = mask is not None and not mask[index]
        table.add_row(token_text.render(entry), *cells, style="dim" if is_padding else "")
    out.print(_strip(entries), table, "", sep="\n")


def _strip(entries: list[VocabularyEntry]) -> Text:
    """Returns the tokens of a row side by side, told apart by their background."""
    return Text.assemble(*_pieces(entries))


def _pieces(entries: list[VocabularyEntry]) -> Iterator[Text]:
    for index, entry in enumerate(entries):
        piece = token_text.render(entry)
        piece.stylize("on grey23" if index % 2 else "on grey30")
        yield piece


def _vocabulary(batch: Batch) -> str:
    ref = batch.vocabulary
    return "" if ref is None else f"{ref.tokenizer_id} revision {ref.revision}, {ref.size} ids"
