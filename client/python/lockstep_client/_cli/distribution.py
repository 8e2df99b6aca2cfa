"""A next-token distribution as bars in the terminal."""

from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lockstep_client import VocabularyEntry
from lockstep_client._cli import token_text
from lockstep_client._cli.stepper import Candidate, Distribution

BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
RAW_STYLE, PROCESSED_STYLE = "blue", "green"


def screen(
    entries: list[VocabularyEntry],
    prompt_length: int,
    distribution: Distribution,
    config: dict[str, Any],
) -> RenderableType:
    """Draws the sequence so far and what may come next.

    Args:
        entries: the tokens of the sequence.
        prompt_length: how many of them are the prompt.
        distribution: what may come next.
        config: the effective configuration.
    """
    title = f"position {len(entries)} · entropy {distribution.entropy:.2f} nats"
    sequence = Panel(
        _sequence(entries, prompt_length), title=title, title_align="left", border_style="dim"
    )
    return Group(sequence, _table(distribution, config))


def _sequence(entries: list[VocabularyEntry], prompt_length: int) -> Text:
    """Returns the text, prompt first; chosen tokens are told apart by their background."""
    line = Text(overflow="fold")
    for index, entry in enumerate(entries):
        piece = token_text.render(entry)
        if index >= prompt_length:
            piece.stylize("bold on grey30" if index % 2 else "bold on grey23")
        line.append_text(piece)
        if entry.token_bytes.endswith(b"\n"):
            line.append("\n")
    return line


def _table(distribution: Distribution, config: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1))
    table.add_column("#", justify="right", style="bold cyan")
    table.add_column("token", no_wrap=True)
    table.add_column("id", justify="right", style="dim")
    table.add_column("logit", justify="right", style="dim")
    table.add_column("model", no_wrap=True)
    table.add_column(f"after {_warpers(config)}", no_wrap=True)
    for number, candidate in enumerate(distribution.candidates, start=1):
        table.add_row(str(number), *_cells(candidate, distribution.drawn_id))
    rest = 1.0 - sum(candidate.probability for candidate in distribution.candidates)
    left = 1.0 - sum(candidate.processed for candidate in distribution.candidates)
    table.add_row("", Text("all others", "dim"), "", "", bar(rest, "dim"), bar(left, "dim"))
    return table


def _cells(candidate: Candidate, drawn_id: int) -> list[RenderableType]:
    token = token_text.render(candidate.entry)
    if candidate.entry.id == drawn_id:
        token.append(" ◂", style="green")
    return [
        token,
        str(candidate.entry.id),
        f"{candidate.logit:.2f}",
        bar(candidate.probability, RAW_STYLE),
        bar(candidate.processed, PROCESSED_STYLE),
    ]


def bar(share: float, style: str) -> Text:
    """Returns a share as a bar, exact to an eighth of a cell, and in percent."""
    share = min(max(share, 0.0), 1.0)
    eighths = round(share * BAR_WIDTH * 8)
    blocks = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    number = f"{share:6.1%}" if share else "     -"
    return Text.assemble((blocks.ljust(BAR_WIDTH), style), f" {number}")


def _warpers(config: dict[str, Any]) -> str:
    """Names the processors and warpers of a configuration that change anything."""
    neutral = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    active = [
        f"{name.replace('_', '-')} {config[name]:g}"
        for name, off in neutral.items()
        if config.get(name, off) != off and (config["do_sample"] or name == "repetition_penalty")
    ]
    return ", ".join(active) or "no warpers"
