"""Growth between steps changes no bit of what runs: 32 streams and 32 sessions, 100 revisions.

In one process, so that a run without growth has the same rows in the same steps,
and what is left to differ is the growth. Reserves are small: buffers move too.
"""

import hashlib
import struct
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

import checkpoints
from model_service.protocol import (
    CloseSession,
    Event,
    GrowVocabulary,
    NewRow,
    OpenSession,
    SequenceSpec,
    SequenceTokens,
    SessionAnswer,
    StepRow,
    StepSession,
    VocabularyGrown,
)
from model_service.protocol.generation import PositionScores, ScoreSelection
from tests.checkpoint_factory import VOCABULARY_SIZE, make_checkpoint
from tests.engine_harness import InprocEngine

STREAMS = SESSIONS = 32
REVISIONS = 100
LONGEST_PAUSE_S = 0.05
ROWS = ScoreSelection(logits=True, amount="full")
# Streams of an uneven number are drawn, the others greedy.
DRAWN = {"do_sample": True, "temperature": 1.2, "top_k": 50, "repetition_penalty": 1.1}
KINDS = ("mean_of_pieces", "mean", "copy", "zero", "values")


def prompt(number: int, size: int) -> list[int]:
    return [(7 * number + 13 * place + number * place) % size for place in range(3 + number % 17)]


def revision(number: int, first_id: int, hidden_size: int) -> GrowVocabulary:
    """One to five tokens, one for each way that a row gets its values."""
    # Long vectors: if a request saw such an id, it would be drawn at once.
    vector = struct.pack(f"<{hidden_size}f", *([30.0] * hidden_size))
    rows = [
        NewRow(
            token_id=first_id + index,
            initialization=kind,
            generable=True,
            previous_ids=[number, 3] if kind == "mean_of_pieces" else [],
            copy_token_id=number if kind == "copy" else None,
            input_values=vector if kind == "values" else b"",
        )
        for index, kind in enumerate(KINDS[-1 - number % len(KINDS) :])
    ]
    return GrowVocabulary(number, rows, request_id=10**7 + number)


@dataclass
class Load:
    """Streams and sessions of one engine, all of them at the revision that they began with.

    Attributes:
        engine: the engine.
        size: ids of that revision.
        tokens: of each stream.
        hashes: over all rows of logits of each stream and session.
        pauses_s: of each growth.
    """

    engine: InprocEngine
    size: int
    tokens: dict[int, list[int]] = field(default_factory=dict)
    hashes: dict[str, "hashlib._Hash"] = field(default_factory=dict)
    pauses_s: list[float] = field(default_factory=list)
    _streams: dict[int, int] = field(default_factory=dict)
    _calls: dict[int, int] = field(default_factory=dict)
    _request_ids: count = field(default_factory=lambda: count(10**6))

    def run(self, new: int, growing: list[GrowVocabulary]) -> None:
        """Generates so many tokens in each stream, with a revision before every step."""
        for number in range(STREAMS):
            drawn = DRAWN if number % 2 else {}
            request_id = self.engine.submit(
                [prompt(number, self.size)], [number], ROWS, max_new_tokens=new, **drawn
            )
            self._streams[request_id] = number
            self.tokens[number] = []
        for number in range(SESSIONS):
            opening = OpenSession(
                f"session {number}",
                [SequenceSpec(prompt(number + 100, self.size), 0)],
                self.engine.config(),
                0,
                max_length=new + 20,
                selection=ROWS,
                request_id=self._call(number),
            )
            self.engine.handle(opening)
        for step in range(new):
            if step < len(growing):
                self.engine.handle(growing[step])
            for event in self.engine.step() or []:
                self._note(event)
            assert not self._calls, "a session waits for more than one step"
            for number in range(SESSIONS):
                ids = StepRow([(number + 3 * step) % self.size], None)
                call = StepSession(f"session {number}", [ids], ROWS, request_id=self._call(number))
                self.engine.handle(call)
        for number in range(SESSIONS):
            self.engine.handle(
                CloseSession(f"session {number}", request_id=next(self._request_ids))
            )
        for event in self.engine.drain():
            self._note(event)

    def outputs(self) -> tuple[dict[int, list[int]], dict[str, str]]:
        """Everything that must not change."""
        return self.tokens, {name: seen.hexdigest() for name, seen in self.hashes.items()}

    def _call(self, number: int) -> int:
        request_id = next(self._request_ids)
        self._calls[request_id] = number
        return request_id

    def _note(self, event: Event) -> None:
        if isinstance(event, SequenceTokens):
            number = self._streams[event.request_id]
            self.tokens[number] += event.token_ids
            self._hash(f"stream {number}", event.scores)
        elif isinstance(event, SessionAnswer) and event.request_id in self._calls:
            number = self._calls.pop(event.request_id)
            self._hash(f"session {number}", event.rows[0].scores)
        elif isinstance(event, VocabularyGrown):
            self.pauses_s.append(event.pause_s)

    def _hash(self, name: str, positions: list[PositionScores]) -> None:
        for position in positions:
            assert len(position.logits) == 4 * self.size
            self.hashes.setdefault(name, hashlib.sha256()).update(position.logits)


def outputs(
    folder: Path, size: int, hidden_size: int, new: int, *, grow: bool
) -> tuple[tuple[dict, dict], list[float]]:
    """Runs the load; returns what came out, and the pauses of growth in seconds."""
    engine = InprocEngine(
        folder,
        dtype="float32",
        max_running_sequences=STREAMS + SESSIONS,
        max_context_tokens=256,
        prefill_budget_s=1e9,  # otherwise the clock decides about the rows of a step
        vocabulary_size=size,
        reserved_vocabulary_rows=50,
    )
    growing, first_id = [], size
    for number in range(1, REVISIONS + 1 if grow else 1):
        growing.append(revision(number, first_id, hidden_size))
        first_id += len(growing[-1].rows)
    load = Load(engine, size)
    load.run(new, growing)
    assert len(load.pauses_s) == len(growing)
    return load.outputs(), load.pauses_s


def check(folder: Path, size: int, hidden_size: int, new: int) -> list[float]:
    """Compares a run with growth to one without; returns the pauses."""
    expected, _ = outputs(folder, size, hidden_size, new, grow=False)
    got, pauses_s = outputs(folder, size, hidden_size, new, grow=True)
    assert {len(tokens) for tokens in got[0].values()} == {new}
    assert len(got[1]) == STREAMS + SESSIONS
    assert got == expected
    return pauses_s


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "qwen2"])
def test_logits_and_tokens_of_running_requests_are_bitwise_those_without_growth(
    architecture, tmp_path
):
    make_checkpoint(tmp_path / "tiny", architecture)
    check(tmp_path / "tiny", VOCABULARY_SIZE, 64, REVISIONS + 10)


@pytest.mark.full
@pytest.mark.default_model
@pytest.mark.timeout(3600)
def test_so_are_those_of_the_default_model_and_no_step_waits_for_long(record_property):
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    pauses_s = sorted(check(folder, 49152, 576, REVISIONS + 10))
    record_property("pauses_s", pauses_s)
    print(
        f"{len(pauses_s)} pauses: median {pauses_s[50] * 1e3:.2f} ms, longest {pauses_s[-1]:.4f} s"
    )
    assert pauses_s[-1] < LONGEST_PAUSE_S
