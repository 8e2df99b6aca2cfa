"""Reads the list of mistakes, makes them, and writes what is raised."""

import re
from collections.abc import Callable
from pathlib import Path

from lockstep_client import Batch, Lockstep, NewToken, ScoreSelection, Tls
from tests.services import Services

FILE = Path(__file__).with_name("client.txt")
_ADDRESS = re.compile(r"localhost:\d+")


def parse(text: str) -> dict[str, str]:
    """Returns what each mistake is told, by the mistake."""
    found: dict[str, str] = {}
    mistake = ""
    for line in text.splitlines():
        if line.startswith("    "):
            found[mistake] = line.strip()
        elif line and not line.startswith("#"):
            mistake = line
            found[mistake] = ""
    return found


def written(text: str, tell: Callable[[str], str]) -> str:
    """Returns the list with what each mistake is told now."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("    "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines.append("    " + tell(line))
    return "\n".join(lines) + "\n"


def told(services: Services) -> Callable[[str], str]:
    """Returns what makes a mistake with a client of these services, and says what is raised."""

    def tell(mistake: str) -> str:
        try:
            with services.client() as ls, ls.model.open_session([[5]], max_length=8) as session:
                names = {"ls": ls, "session": session, "Lockstep": Lockstep, "Batch": Batch}
                names |= {"NewToken": NewToken, "ScoreSelection": ScoreSelection, "Tls": Tls}
                eval(mistake, names)
        except Exception as error:
            text = _ADDRESS.sub("HOST:PORT", " ⏎ ".join(str(error).splitlines()))
            return f"{type(error).__name__}: {text}"
        return "nothing is raised"

    return tell
