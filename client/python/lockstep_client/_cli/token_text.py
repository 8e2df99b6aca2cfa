r"""How a token is shown: every character of it can be seen.

Spaces are `␣`, line feeds `⏎`, tabs `⇥`, and bytes that are not a whole character
`\xNN`. Control tokens have a color of their own, so that the token `<|im_end|>`
is not taken for text that looks like it.
"""

from collections.abc import Sequence

from rich.text import Text

from lockstep_client import Lockstep, VocabularyEntry

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"})
_STYLES = {"special": "bold magenta", "added": "cyan", "unused": "dim"}
_BYTES_STYLE = "yellow"


def render(entry: VocabularyEntry) -> Text:
    """Returns the token as styled text of at least one character."""
    characters, is_text = visible(entry)
    style = _STYLES.get(entry.type, "" if is_text else _BYTES_STYLE)
    return Text(characters or "∅", style=style)


def entries(client: Lockstep, token_ids: Sequence[int]) -> list[VocabularyEntry]:
    """Returns the entry of each id, however many there are: each is looked up once."""
    found = client.tokenizer.convert_tokens(ids=sorted(set(token_ids))).entries
    by_id = {entry.id: entry for entry in found}
    return [by_id[token_id] for token_id in token_ids]


def visible(entry: VocabularyEntry) -> tuple[str, bool]:
    """Returns the token with all characters visible, and whether it is whole characters."""
    return visible_bytes(entry.token_bytes)


def visible_bytes(token_bytes: bytes) -> tuple[str, bool]:
    """As `visible`, for the bytes that a token stands for."""
    try:
        text = token_bytes.decode()
    except UnicodeDecodeError:
        return "".join(_visible_byte(byte) for byte in token_bytes), False
    shown = text.translate(_VISIBLE)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown), True


def _visible_byte(byte: int) -> str:
    character = chr(byte)
    return character if character.isascii() and character.isprintable() else f"\\x{byte:02x}"
