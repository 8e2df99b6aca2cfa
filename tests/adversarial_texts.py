"""Texts that try to become control tokens without being allowed to."""

import random
import unicodedata
from collections.abc import Iterator, Sequence

# What an attacker puts between, around and inside of control tokens.
FILLERS = (
    *("", " ", "  ", "\n", "\t", "\r\n", "\0", "\x7f", "\u00a0", "\u3000"),
    *("\u200b", "\u200c", "\u200d", "\ufeff", "\u2060", "\u00ad", "\u202e", "\u0301"),
    *("<", "|", ">", "[", "]", "</", "x", "é", "🙂", "\u2581", "Ġ", "##", "</w>"),
    # Noncharacters and private ones: what a service might use to mark its own places.
    *("\ufdd0", "\ufdd1", "\ufffe", "\ue000", "\U000f0000", "\U00100000"),
    *("<0x0A>", "<0x3C>", "&lt;", "\\u003c", "%3C", "\\n"),
)


def adversarial_texts(control_tokens: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Returns texts made of control tokens, parts and disguises of them, and fillers."""
    generator = random.Random(seed)
    pieces = [*FILLERS]
    for token in control_tokens:
        pieces += [token] * 4
        pieces += _disguises(token, generator)
    texts = ["".join(generator.choices(pieces, k=generator.randint(1, 12))) for _ in range(count)]
    texts[: len(control_tokens)] = control_tokens
    return texts


def _disguises(token: str, generator: random.Random) -> Iterator[str]:
    cut = generator.randint(1, max(1, len(token) - 1))
    yield token[:cut]
    yield token[cut:]
    yield token[:cut] + token + token[cut:]
    yield token + token[cut:]
    yield token.upper()
    yield token.lower()
    yield f" {token} "
    yield generator.choice(FILLERS).join(token)
    for form in ("NFD", "NFKD"):
        yield unicodedata.normalize(form, token)
    # Full-width forms, which NFKC makes ASCII of.
    yield "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in token)
    yield "".join(f"<0x{byte:02X}>" for byte in token.encode())
    yield "".join(f"{character}\u0301" for character in token)
    yield token.replace("|", "\uff5c").replace("_", "\u2581")
