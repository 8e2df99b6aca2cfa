"""Which bytes a token stands for.

A tokenizer's decoder turns token spellings into text. For byte-level BPE and for
SentencePiece-like vocabularies it does so one token at a time, save for the white
space at the very beginning, so every token has its own bytes and the text is
their concatenation (`DecoderRules.concatenates`). Other decoders (WordPiece) look
at neighbors, and their token bytes are only what each token looks like.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

_SPACE = " "


class TokenType(Enum):
    """What kind of entry a vocabulary id is."""

    NORMAL = "normal"
    BYTE = "byte"
    SPECIAL = "special"
    ADDED = "added"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class DecoderRules:
    """What a tokenizer's decoder does to the spelling of a token.

    Attributes:
        concatenates: whether the text is the concatenation of token bytes.
        byte_level: whether spellings use the printable stand-ins of byte-level BPE.
        byte_fallback: whether `<0xNN>` is the byte NN.
        replacements: strings replaced in every spelling.
        drops_first: a character omitted from the first token (Metaspace's space).
        strips_left: number of spaces removed at the beginning of the text.
        continuation: prefix of tokens that continue a word (WordPiece).
        ending: suffix of tokens that end a word.
        joins: whether words are joined by spaces, so that one token of context is needed.
    """

    concatenates: bool = False
    byte_level: bool = False
    byte_fallback: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    drops_first: str = ""
    strips_left: int = 0
    continuation: str = ""
    ending: str = ""
    joins: bool = False

    def spell(self, token: str) -> tuple[bytes, TokenType]:
        """Returns the bytes of a token of the model's vocabulary, and its kind."""
        if self.byte_fallback and (byte := _fallback_byte(token)) is not None:
            return byte, TokenType.BYTE
        if self.byte_level:
            return _byte_level_bytes(token), TokenType.NORMAL
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.ending:
            token = token.replace(self.ending, "")
        return token.removeprefix(self.continuation).encode(), TokenType.NORMAL

    def spell_first(self, token: str) -> bytes:
        """Returns the bytes of a token of the model's vocabulary that begins a text."""
        return self.spell(token.replace(self.drops_first, "") if self.drops_first else token)[0]


def decoder_rules(decoder: dict[str, Any] | None) -> DecoderRules:
    """Reads the `decoder` member of `tokenizer.json`.

    What is not recognized gives rules without `concatenates` and `joins`: text is
    then decoded by the tokenizer library alone, as a whole.
    """
    if decoder is None:
        return DecoderRules(joins=True)
    match decoder["type"]:
        case "WordPiece":
            return DecoderRules(continuation=decoder.get("prefix", "##"), joins=True)
        case "BPEDecoder":
            return DecoderRules(ending=decoder.get("suffix", "</w>"), joins=True)
        case "Sequence":
            return _sequence_rules(decoder["decoders"])
    return _sequence_rules([decoder])


def _sequence_rules(steps: list[dict[str, Any]]) -> DecoderRules:
    """Reads steps that work on one token each, then `Fuse`, then `Strip`."""
    members: dict[str, Any] = {"concatenates": True, "replacements": ()}
    fused = False
    for step in steps:
        match step:
            case {"type": "ByteLevel"} if not fused:
                members["byte_level"] = fused = True
            case {"type": "Metaspace", "replacement": str(mark)} if not fused:
                members["replacements"] += ((mark, _SPACE),)
                if step.get("prepend_scheme", "always") != "never":
                    members["drops_first"] = mark
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if (
                not fused
            ):
                members["replacements"] += ((old, new),)
            case {"type": "ByteFallback"} if not fused:
                members["byte_fallback"] = True
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Strip", "content": " ", "start": int(start), "stop": 0} if fused:
                members["strips_left"] = start
            case _:
                return DecoderRules()
    return DecoderRules(**members)


def _fallback_byte(token: str) -> bytes | None:
    match = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token)
    return bytes.fromhex(match[1]) if match else None


def _byte_level_bytes(token: str) -> bytes:
    table = byte_level_alphabet()
    try:
        return bytes(table[character] for character in token)
    except KeyError:  # not made of stand-ins: the library takes its text as it is
        return token.encode()


@cache
def byte_level_alphabet() -> dict[str, int]:
    """Returns the printable stand-in of each byte, as GPT-2 chose them.

    Source: `bytes_to_unicode` of https://github.com/openai/gpt-2, `src/encoder.py`.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in alphabet)
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet
