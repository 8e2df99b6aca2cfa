"""Refuses a tokenizer that a short text can make slow or large.

A regular expression of a `tokenizer.json` may take longer than the age of the world for a
text of thirty characters, or the square of its length; a normalizer may make a thousand
characters of each; and a thread that does either cannot be ended. What models in use have
is known (`known_patterns`), and everything else is tried in a separate process.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tokenizer_service.text.components.component_trial import DONE, MAX_GROWTH
from tokenizer_service.text.components.known_patterns import KNOWN_PATTERNS
from tokenizer_service.text.components.pattern_texts import samples
from tokenizer_service.text.tokenizer_files import TokenizerFilesError

_KINDS = ("normalizer", "pre_tokenizer", "decoder")
# A pattern takes a second or two of processor time.
_TIMEOUT_S = 120.0
# Words of WordPiece and pieces of Unigram are compared place by place.
_MAX_PIECE_CHARACTERS = 1024
_SHOWN_CHARACTERS = 80


class _Component(NamedTuple):
    """A component that is not a sequence of others.

    Attributes:
        path: where `tokenizer.json` has it.
        kind: what it is to the tokenizer.
        members: what `tokenizer.json` says.
    """

    path: str
    kind: str
    members: Mapping[str, Any]

    @property
    def pattern(self) -> str | None:
        """Its regular expression, None when it has none."""
        pattern = self.members.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        return regex if isinstance(regex, str) else None

    @property
    def literal(self) -> str | None:
        """The text that it looks for, None when it has none."""
        pattern = self.members.get("pattern")
        literal = pattern.get("String") if isinstance(pattern, dict) else pattern
        return literal if isinstance(literal, str) else None

    @property
    def growth(self) -> float:
        """Bytes that it may make of one at most, where it replaces something."""
        content = self.members.get("content")
        if self.members.get("type") != "Replace" or not isinstance(content, str):
            return 1.0
        return max(1.0, len(content.encode()) / (len((self.literal or "").encode()) or 1))


def check(tokenizer_json: Mapping[str, Any]) -> None:
    """Checks the components of a tokenizer before any of them is used.

    Args:
        tokenizer_json: the members of `tokenizer.json`.

    Raises:
        TokenizerFilesError: one is slow for some text, or makes too much of it.
    """
    _check_model(tokenizer_json.get("model"))
    trials: list[tuple[dict[str, Any], str]] = []
    for kind in _KINDS:
        leaves = list(_leaves(kind, kind, tokenizer_json.get(kind)))
        for leaf in leaves:
            if leaf.pattern is not None and leaf.pattern not in KNOWN_PATTERNS:
                trial = {"component": leaf.members, "pattern": leaf.pattern}
                trials.append(({"kind": kind, **trial}, _slow(leaf.path, leaf.pattern)))
        if math.prod(leaf.growth for leaf in leaves) > MAX_GROWTH:
            trial = {"component": tokenizer_json[kind], "texts": _replaced(leaves)}
            trials.append(({"kind": kind, **trial}, _growing(kind)))
    if trials and (failed := _first_failed([trial for trial, _ in trials])) is not None:
        raise TokenizerFilesError(trials[failed][1])


def _check_model(model: object) -> None:
    if not isinstance(model, dict):
        return
    longest = model.get("max_input_chars_per_word")
    if isinstance(longest, int) and longest > _MAX_PIECE_CHARACTERS:
        raise TokenizerFilesError(
            f"tokenizer.json has a model whose max_input_chars_per_word is {longest}: the time "
            f"grows with its square. Set it to {_MAX_PIECE_CHARACTERS} or less; BERT has 100."
        )
    vocab = model.get("vocab")
    entries = vocab if isinstance(vocab, list) else ()  # of Unigram: pieces with scores
    pieces = (entry[0] for entry in entries if isinstance(entry, list) and entry)
    longest = max((len(piece) for piece in pieces if isinstance(piece, str)), default=0)
    if longest > _MAX_PIECE_CHARACTERS:
        raise TokenizerFilesError(
            f"tokenizer.json has a Unigram model with a piece of {longest} characters, which are "
            "looked for at every place of a text. Take out the pieces of more than "
            f"{_MAX_PIECE_CHARACTERS}."
        )


def _leaves(path: str, kind: str, component: object) -> Iterator[_Component]:
    if not isinstance(component, dict):
        return
    yield _Component(path, kind, component)
    for name, members in component.items():
        if isinstance(members, list):  # of a sequence
            for index, member in enumerate(members):
                yield from _leaves(f"{path}.{name}[{index}]", kind, member)


def _replaced(leaves: list[_Component]) -> list[str]:
    """Returns texts that the components replace, also in pieces."""
    literals = [leaf.literal for leaf in leaves if leaf.literal]
    characters = [each for leaf in leaves for each in samples(leaf.pattern or "")]
    found = dict.fromkeys([*literals, *"".join(literals + characters)])
    return [text for each in found for text in (each, f"{each}\0")]


def _first_failed(trials: list[dict[str, Any]]) -> int | None:
    """Runs trials and returns the number of the first that failed, None when none did.

    Raises:
        TokenizerFilesError: the process for them did not start.
    """
    try:
        output = subprocess.run(
            [sys.executable, "-m", "tokenizer_service.text.components.component_trial"],
            input=json.dumps(trials),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode()
    lines = output.split()
    if not lines:
        raise TokenizerFilesError(
            "The components of tokenizer.json cannot be tried: the process for it does not start."
        )
    return None if lines[-1] == DONE else int(lines[-1])


def _slow(path: str, pattern: str) -> str:
    shown = ascii(pattern)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}..."
    return (
        f"The {path} of tokenizer.json has a regular expression whose time grows faster than the "
        f"text, so that one text could stop the service: {shown}. Write it so that a text can be "
        "matched in one way only."
    )


def _growing(kind: str) -> str:
    return (
        f"The {kind} of tokenizer.json makes more than {MAX_GROWTH} bytes of one where it "
        "replaces text, so that one text could fill the memory. Shorten what it puts in."
    )
