"""An engine process whose model one can compute in the head: 4 is followed by 5.

It speaks the front's protocol over a real socket and a real ring, without
torch, so that tests of the front start in a tenth of a second and can make the
engine misbehave:

* The logits after token t are 0 but for 5.0 at t + 1 (modulo the vocabulary).
* A prompt that begins with `DIES` ends the process, one with `HANGS` stops it
  for good, one with `WORKS` makes it compute for `WORK_S`, one with `FAILS` makes
  its own row fail, one with `REFUSED` is refused, one with `BABBLES` is refused
  with an error nobody knows.
* A step of a session that begins with `HANGS` takes `HANG_STEP_S`.
* A model folder named `refused` cannot be loaded.
"""

import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass

import msgspec

from model_service.engine.sequences import stop_strings
from model_service.protocol import (
    Cancel,
    CloseSession,
    Command,
    ContinueSession,
    DescribeSession,
    EngineInfo,
    EngineSettings,
    Event,
    Failure,
    Finish,
    FlushPrefixCache,
    ForkSession,
    Generate,
    GenerateSession,
    GrowVocabulary,
    Load,
    LoadFailed,
    LoadProgress,
    OpenSession,
    Ping,
    PrefixCacheFlushed,
    Ready,
    RebindSession,
    Rejected,
    Report,
    SelectSessionRows,
    SequenceTokens,
    SessionAnswer,
    SessionDescription,
    SessionForked,
    SessionRowAnswer,
    Shutdown,
    SpellTokens,
    StepSession,
    StepStats,
    TruncateSession,
    VocabularyGrown,
    channel,
)
from model_service.protocol.generation import PositionScores, ScoreSelection
from model_service.protocol.parameters import GenerationConfig

VOCABULARY_SIZE = 32
CONTEXT_LENGTH = 256
KV_TOKENS = 8192
EOS_ID = 20
DIES, HANGS, FAILS, REFUSED, BABBLES, WORKS = 31, 30, 29, 28, 27, 26
WORK_S = 1.0
EXIT_CODE = 3
HANG_STEP_S = 0.3
STEP_S = float(os.environ.get("COUNTING_STEP_S", "0.001"))

DEFAULT_CONFIG = GenerationConfig(max_new_tokens=8, eos_token_ids=(EOS_ID,))


@dataclass
class Running:
    """A call that generates, and how long its rows were when it began."""

    command: Generate | GenerateSession | ContinueSession
    starts: list[int]


class CountingEngine:
    """Runs one token per sequence and step."""

    def __init__(self, settings: EngineSettings, ring: channel.RingWriter) -> None:
        self.vocabulary_size = settings.vocabulary_size or VOCABULARY_SIZE
        self.revision = 0
        self.token_bytes: dict[int, bytes] = {}
        self.ring = ring
        self.load = Load()
        self.events: list[Event] = []
        self.running: list[tuple[Running, int, list[int]]] = []
        self.sessions: dict[str, list[list[int]]] = {}

    def info(self) -> EngineInfo:
        return EngineInfo(
            architecture="CountingModel",
            dtype="float32",
            parameter_count=1,
            hidden_size=4,
            layer_count=1,
            context_length=CONTEXT_LENGTH,
            vocabulary_size=self.vocabulary_size,
            embedding_row_count=self.vocabulary_size,
            tied_embeddings=True,
            eos_token_ids=[EOS_ID],
            bos_token_id=None,
            pad_token_id=None,
            default_config=DEFAULT_CONFIG,
            device_map={"": "cpu"},
            execution_path="fast",
            attention="none",
            rng="none",
            kv_total_tokens=KV_TOKENS,
            kv_session_tokens=KV_TOKENS,
            kv_bytes_per_token=1,
            reserved_rows=16,
            max_running_sequences=4,
            load_s=0.0,
        )

    def handle(self, command: Command) -> None:
        if isinstance(command, Generate):
            self.generate(command)
        elif isinstance(command, Cancel):
            self.cancel(command)
        elif isinstance(command, GenerateSession):
            rows = [list(spec.prompt_token_ids) for spec in command.sequences]
            self.sessions[command.session_id] = rows
            self.run(command, rows)
        elif isinstance(command, ContinueSession):
            self.run(command, self.sessions[command.session_id])
        elif isinstance(command, OpenSession):
            rows = [list(spec.prompt_token_ids) for spec in command.sequences]
            self.sessions[command.session_id] = rows
            self.answer(command.request_id, rows, rows, command.selection)
            for row, pending in zip(rows, command.pending, strict=False):
                row += pending
        elif isinstance(command, StepSession):
            self.step_session(command)
        elif isinstance(command, TruncateSession):
            rows = self.sessions[command.session_id]
            for row, length in zip(rows, command.lengths, strict=True):
                del row[length:]
            self.answer_positions(command.request_id, rows)
        elif isinstance(command, ForkSession):
            rows = [self.sessions[command.session_id][index] for index in command.rows]
            for fork_id in command.fork_ids:
                self.sessions[fork_id] = [list(row) for row in rows]
            lengths = list(map(len, rows))
            copied = sum(lengths) * len(command.fork_ids)
            self.events.append(SessionForked(command.request_id, lengths, sum(lengths), copied))
        elif isinstance(command, SelectSessionRows):
            rows = self.sessions[command.session_id]
            rows[:] = [list(rows[index]) for index in command.rows]
            self.answer_positions(command.request_id, rows)
        elif isinstance(command, RebindSession):
            self.answer_positions(command.request_id, self.sessions[command.session_id])
        elif isinstance(command, DescribeSession | CloseSession):
            rows = self.sessions.get(command.session_id)
            if rows is None:
                self.refuse(command.request_id, "SessionNotFound", session_id=command.session_id)
                return
            if isinstance(command, CloseSession):
                del self.sessions[command.session_id]
            num_pending = (0,) * len(rows)
            self.events.append(SessionDescription(command.request_id, rows, 1, num_pending))
        elif isinstance(command, SpellTokens):
            self.token_bytes.update(enumerate(command.token_bytes))
        elif isinstance(command, Ping):
            self.load = None
        elif isinstance(command, FlushPrefixCache):
            self.events.append(PrefixCacheFlushed(command.request_id, 0))
        elif isinstance(command, GrowVocabulary):
            self.token_bytes.update((row.token_id, row.token_bytes) for row in command.rows)
            self.revision = command.revision
            self.vocabulary_size += len(command.rows)
            self.events.append(
                VocabularyGrown(
                    command.request_id, command.revision, self.vocabulary_size, 15, "ab" * 32, 0.001
                )
            )

    def generate(self, command: Generate) -> None:
        first = command.sequences[0].prompt_token_ids[0]
        if first == DIES:
            os._exit(EXIT_CODE)
        if first == HANGS:
            time.sleep(3600)
        if first == WORKS:
            start = time.process_time()
            while time.process_time() - start < WORK_S:
                pass
        if first == REFUSED:
            self.refuse(command.request_id, "KVCacheExceeded", kv_tokens=2, limit_tokens=1)
        elif first == BABBLES:
            self.refuse(command.request_id, "NoSuchError", detail="secret")
        else:
            self.run(command, [list(spec.prompt_token_ids) for spec in command.sequences])

    def run(
        self, command: Generate | GenerateSession | ContinueSession, rows: list[list[int]]
    ) -> None:
        running = Running(command, list(map(len, rows)))
        self.running += [(running, row, ids) for row, ids in enumerate(rows)]

    def cancel(self, command: Cancel) -> None:
        for run in list(self.running):
            running, row, ids = run
            if running.command.request_id == command.request_id:
                self.running.remove(run)
                if isinstance(running.command, GenerateSession):
                    self.sessions.pop(running.command.session_id, None)
                del ids[running.starts[row] :]

    def step_session(self, command: StepSession) -> None:
        rows = self.sessions[command.session_id]
        if any(step.token_ids[:1] == [HANGS] for step in command.rows):
            time.sleep(HANG_STEP_S)
        for index, (row, step) in enumerate(zip(rows, command.rows, strict=True)):
            if step.expected_position not in (None, len(row)):
                self.refuse(
                    command.request_id,
                    "PositionConflict",
                    row=index,
                    expected=step.expected_position,
                    current=len(row),
                )
                return
        for row, step in zip(rows, command.rows, strict=True):
            row += step.token_ids
        given = [step.token_ids for step in command.rows]
        self.answer(command.request_id, rows, given, command.selection, sample=command.sample)
        if command.look_ahead:
            for row, step in zip(rows, command.rows, strict=True):
                del row[len(row) - len(step.token_ids) :]

    def answer_positions(self, request_id: int, rows: list[list[int]]) -> None:
        answers = [SessionRowAnswer(len(row)) for row in rows]
        self.events.append(SessionAnswer(request_id, answers, sum(map(len, rows))))

    def answer(
        self,
        request_id: int,
        rows: list[list[int]],
        given: list[list[int]],
        selection: ScoreSelection,
        *,
        sample: bool = False,
    ) -> None:
        answers = [
            SessionRowAnswer(
                position=len(row),
                scores=[self.scores(row, None, selection)] if new else [],
                sampled_token_id=self.next(row) if sample and new else None,
            )
            for row, new in zip(rows, given, strict=True)
        ]
        self.events.append(SessionAnswer(request_id, answers, sum(map(len, rows))))

    def refuse(self, request_id: int, error: str, **arguments: object) -> None:
        self.events.append(Rejected(request_id, Failure(error, arguments)))

    def next(self, ids: list[int]) -> int:
        return (ids[-1] + 1) % self.vocabulary_size

    def scores(
        self, ids: list[int], token_id: int | None, selection: ScoreSelection
    ) -> PositionScores:
        logits = [0.0] * self.vocabulary_size
        logits[self.next(ids)] = 5.0
        row = memoryview(struct.pack(f"<{len(logits)}f", *logits))
        full = selection.amount == "full"
        return PositionScores(
            position=len(ids),
            token_id=token_id,
            logits=self.ring.put(row) if full and selection.logits else None,
            scores=self.ring.put(row) if full and selection.scores else None,
        )

    def step(self) -> Report | None:
        """Advances every sequence by one token."""
        for run in list(self.running):
            running, row, ids = run
            command = running.command
            if ids[0] == FAILS:
                failure = Failure("NonFiniteLogits", {"row": row, "position": len(ids)})
                finish = Finish("error", failure=failure)
                self.events.append(SequenceTokens(command.request_id, row, [], finish=finish))
                self.running.remove(run)
                continue
            token_id = self.next(ids)
            event = SequenceTokens(command.request_id, row, [token_id])
            if command.selection is not None:
                event.scores = [self.scores(ids, token_id, command.selection)]
            ids.append(token_id)
            event.finish = self.finish(running, row, ids)
            if event.finish is not None:
                self.running.remove(run)
            self.events.append(event)
        load = Load(
            running=len(self.running),
            kv_used_tokens=sum(len(row) for rows in self.sessions.values() for row in rows),
        )
        if not self.events and load == self.load:
            return None
        self.load = load
        stats = StepStats(
            duration_s=STEP_S,
            decode_rows=len(self.running),
            prefill_tokens=0,
            forward_s=STEP_S,
            sample_s=0.0,
        )
        events, self.events = self.events, []
        return Report(events, load, stats)

    def finish(self, running: Running, row: int, ids: list[int]) -> Finish | None:
        command = running.command
        num_new = len(ids) - running.starts[row]
        if ids[-1] in command.config.eos_token_ids:
            return Finish("eos_token", steps=num_new)
        if ids[-1] in command.config.stop_token_ids:
            return Finish("stop_token", steps=num_new)
        stops, earlier = command.config.stop_strings, ids[-2 : -num_new - 1 : -1]
        if stops and (stop := stop_strings.completed(stops, ids[-1], earlier, self.token_bytes)):
            return Finish("stop_string", steps=num_new, stop_string=stop)
        if num_new == command.config.max_new_tokens:
            return Finish("max_new_tokens", steps=num_new)
        if len(ids) == CONTEXT_LENGTH:
            return Finish("context_length", steps=num_new)
        return None


def main() -> int:
    settings = msgspec.json.decode(sys.argv[1], type=EngineSettings)
    front = socket.socket(socket.AF_UNIX)
    front.connect(settings.socket_path)
    front.sendall(channel.frame(LoadProgress("weights", 0.5)))
    if settings.model_folder.endswith("refused"):
        front.sendall(channel.frame(LoadFailed("This model is refused; take another.")))
        return 1
    engine = CountingEngine(settings, channel.RingWriter(settings.ring_name))
    front.sendall(channel.frame(Ready(engine.info())))
    reader = channel.FrameReader()
    while True:
        wait_s = STEP_S if engine.running else None
        if select.select([front], [], [], wait_s)[0]:
            data = front.recv(2**20)
            if not data:
                return 0  # the front is gone
            for body in reader.feed(data):
                commands = channel.decode_commands(body)
                engine.ring.release(commands.consumed)
                for command in commands.commands:
                    if isinstance(command, Shutdown):
                        return 0
                    engine.handle(command)
        if report := engine.step():
            front.sendall(channel.frame(report))


if __name__ == "__main__":
    sys.exit(main())
