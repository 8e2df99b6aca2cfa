"""An engine without a model, so that what the front costs can be measured by itself.

`python -m bench.counting_engine SETTINGS`, started by the front. Each row gets the next number as
its token, every `COUNTING_STEP_S` seconds, which is 0 unless set: as fast as the front takes them.
"""

import os
import select
import socket
import sys
import time
from array import array

import msgspec

from model_service.protocol import (
    Cancel,
    Command,
    EngineInfo,
    EngineSettings,
    Event,
    Finish,
    Generate,
    Load,
    OpenSession,
    Ready,
    Report,
    SequenceTokens,
    SessionAnswer,
    SessionRowAnswer,
    Shutdown,
    StepSession,
    StepStats,
    channel,
)
from model_service.protocol.generation import PositionScores, ScoreSelection, TokenScore
from model_service.protocol.parameters import GenerationConfig

STEP_S = float(os.environ.get("COUNTING_STEP_S", "0"))
MOST_ROWS = 1024
READ_BYTES = 2**20


class CountingEngine:
    """Rows that count. Knows generating, and sessions of one row that are opened and stepped."""

    def __init__(self, settings: EngineSettings, ring: channel.RingWriter) -> None:
        """Starts without rows."""
        self._ring = ring
        self._vocabulary_size = settings.vocabulary_size
        self._row = memoryview(array("f", range(self._vocabulary_size))).cast("B")
        self._left: dict[tuple[int, int], int] = {}
        self._lengths: dict[str, int] = {}
        self._events: list[Event] = []

    @property
    def is_running(self) -> bool:
        """Whether there are rows to advance."""
        return bool(self._left)

    @property
    def info(self) -> EngineInfo:
        """What the front is told of the model."""
        return EngineInfo(
            architecture="CountingModel",
            dtype="float32",
            parameter_count=0,
            hidden_size=0,
            layer_count=0,
            context_length=2**20,
            vocabulary_size=self._vocabulary_size,
            embedding_row_count=self._vocabulary_size,
            tied_embeddings=True,
            eos_token_ids=[],
            bos_token_id=None,
            pad_token_id=None,
            default_config=GenerationConfig(max_new_tokens=8),
            device_map={"": "cpu"},
            execution_path="fast",
            attention="none",
            rng="none",
            kv_total_tokens=2**30,
            kv_session_tokens=2**20,
            kv_bytes_per_token=1,
            reserved_rows=0,
            max_running_sequences=MOST_ROWS,
            load_s=0.0,
        )

    def handle(self, command: Command) -> None:
        """Takes a command; those that are not known are passed over."""
        if isinstance(command, Generate):
            for row in range(len(command.sequences)):
                self._left[command.request_id, row] = command.config.max_new_tokens
        elif isinstance(command, Cancel):
            for key in [key for key in self._left if key[0] == command.request_id]:
                del self._left[key]
        elif isinstance(command, OpenSession):
            (spec,) = command.sequences
            self._lengths[command.session_id] = len(spec.prompt_token_ids)
            self._answer(command.request_id, command.session_id, command.selection)
        elif isinstance(command, StepSession):
            (step,) = command.rows
            self._lengths[command.session_id] += len(step.token_ids)
            self._answer(command.request_id, command.session_id, command.selection)

    def _answer(self, request_id: int, session_id: str, selection: ScoreSelection) -> None:
        position = self._lengths[session_id]
        if selection.amount == "full":
            scores = PositionScores(position, logits=self._ring.put(self._row))
        else:
            tokens = [TokenScore(i, float(i), None) for i in range(selection.top_k)]
            scores = PositionScores(position, tokens=tokens)
        answer = SessionRowAnswer(position, [scores] if selection.logits else [])
        self._events.append(SessionAnswer(request_id, [answer], kv_bytes=position))

    def step(self) -> Report | None:
        """Advances every row by one token. Returns None when there is nothing to report."""
        events, self._events = self._events, []
        for (request_id, row), left in list(self._left.items()):
            finish = None if left > 1 else Finish("max_new_tokens")
            events.append(SequenceTokens(request_id, row, [left], finish=finish))
            if finish is None:
                self._left[request_id, row] = left - 1
            else:
                del self._left[request_id, row]
        if not events:
            return None
        stats = StepStats(STEP_S, len(events), 0, STEP_S, 0.0)
        return Report(events, Load(running=len(self._left)), stats)


def main() -> int:
    """Serves a front until it is gone."""
    settings = msgspec.json.decode(sys.argv[1], type=EngineSettings)
    front = socket.socket(socket.AF_UNIX)
    front.connect(settings.socket_path)
    ring = channel.RingWriter(settings.ring_name)
    engine = CountingEngine(settings, ring)
    front.sendall(channel.frame(Ready(engine.info)))
    reader = channel.FrameReader()
    due = time.monotonic()
    while True:
        wait_s = max(0.0, due - time.monotonic()) if engine.is_running else None
        while select.select([front], [], [], wait_s)[0]:
            data = front.recv(READ_BYTES)
            if not data:
                return 0
            for body in reader.feed(data):
                commands = channel.decode_commands(body)
                ring.release(commands.consumed)
                for command in commands.commands:
                    if isinstance(command, Shutdown):
                        return 0
                    engine.handle(command)
            wait_s = 0.0
        due = time.monotonic() + STEP_S
        if report := engine.step():
            front.sendall(channel.frame(report))


if __name__ == "__main__":
    sys.exit(main())
