"""What a notebook shows of values. Everything that is not from here is escaped."""

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

_COLORS: Final = ("#dbeafe", "#dcfce7", "#fef9c3", "#fce7f3", "#ede9fe")
_PADDING_COLOR: Final = "#e5e7eb"
MAX_ROWS: Final = 20
"""Most rows that are shown."""
_MAX_PIECES: Final = 200
_VISIBLE: Final = str.maketrans({" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"})

Cell = str | int | float | None


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def piece(token_bytes: bytes) -> str:
    """Returns what a token stands for with every character visible."""
    try:
        return token_bytes.decode().translate(_VISIBLE)
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in token_bytes)


def tokens(token_ids: Sequence[int], texts: Sequence[str] = (), mask: Sequence[int] = ()) -> Markup:
    """Draws a row of ids side by side in colors, padding in gray.

    Args:
        token_ids: the ids.
        texts: what they stand for; shown above the ids where it is known.
        mask: 1 at tokens and 0 at padding; all are tokens unless given.
    """
    boxes = []
    for index, token_id in enumerate(token_ids[:_MAX_PIECES]):
        is_padding = index < len(mask) and not mask[index]
        color = _PADDING_COLOR if is_padding else _COLORS[index % len(_COLORS)]
        text = f"{html.escape(texts[index])}<br>" if index < len(texts) else ""
        boxes.append(
            f'<span style="display:inline-block;margin:1px;padding:1px 3px;color:#111;'
            f'text-align:center;background:{color}">{text}<small>{token_id}</small></span>'
        )
    return Markup("".join(boxes) + _more(len(token_ids), _MAX_PIECES))


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], max_rows: int = MAX_ROWS) -> Markup:
    """Draws a table, of many rows the first ones."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
    for row in rows[:max_rows]:
        cells = "".join(f'<td style="text-align:left">{_cell(cell)}</td>' for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return Markup(f"<table>{''.join(lines)}</table>" + _more(len(rows), max_rows))


def facts(values: Mapping[str, Cell]) -> Markup:
    """Draws names and values on one line."""
    shown = (f"{html.escape(name)} {_cell(value)}" for name, value in values.items())
    return Markup(f"<div><small>{' · '.join(shown)}</small></div>")


def text(content: str) -> Markup:
    """Draws a text with its line feeds and spaces."""
    return Markup(f'<div style="white-space:pre-wrap">{html.escape(content)}</div>')


def bar(share: float | None) -> Markup:
    """Draws a share of 1 as a bar, with its number."""
    if share is None:
        return Markup("")
    width = 120 * min(max(share, 0.0), 1.0)
    return Markup(
        f'<span style="display:inline-block;height:0.8em;width:{width:.1f}px;'
        f'background:#3b82f6"></span> {share:.1%}'
    )


def stacked(parts: Iterable[str]) -> Markup:
    """Puts parts below each other, of many the first ones."""
    return Markup("".join(f"<div>{part}</div>" for part in itertools.islice(parts, MAX_ROWS)))


def _cell(cell: Cell) -> str:
    if isinstance(cell, Markup):
        return cell
    return (
        "" if cell is None else html.escape(f"{cell:.4g}" if isinstance(cell, float) else str(cell))
    )


def _more(count: int, limit: int) -> str:
    return f"<small>… {count} in all</small>" if count > limit else ""
