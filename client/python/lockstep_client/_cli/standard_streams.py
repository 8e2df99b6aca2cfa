"""`-` on a command line: standard input, or standard output where a file is written."""

import sys
from typing import Final

import typer

STANDARD: Final = "-"


def given_text(text: str | None) -> str | None:
    """Returns a text of the command line; `-` stands for what comes from standard input.

    Raises:
        typer.BadParameter: standard input is not UTF-8.
    """
    if text != STANDARD:
        return text
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise typer.BadParameter("Standard input is not UTF-8.") from None


def given_texts(texts: list[str]) -> list[str]:
    """Returns texts of the command line, one of which may be `-` for standard input.

    Raises:
        typer.BadParameter: standard input is not UTF-8, or is asked for twice.
    """
    if texts.count(STANDARD) > 1:
        raise typer.BadParameter("`-` can be given once: it reads all of standard input.")
    return [given_text(text) or "" for text in texts]


def given_lines(texts: list[str]) -> list[str]:
    """As `given_texts`, with every line of standard input as a text."""
    lines = []
    for given, text in zip(texts, given_texts(texts), strict=True):
        lines += text.splitlines() if given == STANDARD else [text]
    return lines
