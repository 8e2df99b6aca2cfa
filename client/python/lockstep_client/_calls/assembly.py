"""Turns the events of a generation stream into deltas, and deltas into a result.

Pure state machines: they read messages and do no I/O, so that the blocking
and the asyncio client share them.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from lockstep.v1 import generation_pb2 as generation_pb
from lockstep.v1 import model_service_pb2 as model_pb
from lockstep.v1 import scores_pb2 as scores_pb
from lockstep.v1 import tensor_pb2 as tensor_pb

from lockstep_client._calls.announced_rows import AnnouncedRows
from lockstep_client._requests import generation_config
from lockstep_client._results import generation as results
from lockstep_client._results.determinism import Determinism
from lockstep_client._results.generation import GeneratedSequence, Generation, TokenDelta
from lockstep_client._results.scores import positions
from lockstep_client._transport import status
from lockstep_client._values import batch as batches
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import LockstepError, NoTokenLeft, ProtocolError


class DeltaReader:
    """Yields the deltas of a stream in their order, each when its rows are complete.

    A message announces rows by `tensor_id`, and their bytes follow in chunks: a
    delta is held back until it has all of them.
    """

    def __init__(self, request: model_pb.GenerateRequest) -> None:
        self._dtype = _row_type(request.scores)
        self._prompt_dtype = _row_type(request.prompt_scores)
        self._waiting: deque[model_pb.TokenDelta] = deque()
        self._rows = AnnouncedRows()

    def read(self, event: model_pb.GenerateStreamResponse) -> Iterator[TokenDelta]:
        """Takes one event and yields the deltas that it completes.

        Raises:
            ProtocolError: the pieces of a tensor do not fit together.
        """
        if event.WhichOneof("event") == "chunk":
            self._rows.add(event.chunk)
        else:
            self._waiting.extend(event.deltas.deltas)
        while self._waiting and self._complete(self._waiting[0]):
            yield self._delta(self._waiting.popleft())

    def _complete(self, delta: model_pb.TokenDelta) -> bool:
        return self._rows.complete((*delta.scores, *delta.prompt_scores))

    def _delta(self, message: model_pb.TokenDelta) -> TokenDelta:
        return TokenDelta(
            prompt_index=message.prompt_index,
            sequence_index=message.sequence_index,
            token_ids=tuple(message.token_ids),
            scores=positions(message.scores, lambda row: self._rows.take(row, self._dtype)),
            prompt_scores=positions(
                message.prompt_scores, lambda row: self._rows.take(row, self._prompt_dtype)
            ),
        )


class GenerationAssembler:
    """Takes the events of one stream; gives its deltas, and in the end its result."""

    def __init__(
        self, request: model_pb.GenerateRequest, *, keep_scores: bool, raises: bool = True
    ) -> None:
        """Starts empty.

        Args:
            request: the request of the stream.
            keep_scores: whether the result holds what was asked for about each
                position, or the reader of the deltas does.
            raises: whether the error of a sequence is raised, or is in the result.
        """
        self._raises = raises
        self._prompt = request.prompt
        self._has_seed = bool(request.seeds) or request.generation_config.HasField("seed")
        self._reader = DeltaReader(request)
        self._keep_scores = keep_scores
        self._started: model_pb.GenerationStarted | None = None
        self._completed: model_pb.GenerationCompleted | None = None
        self._deltas: dict[tuple[int, int], list[TokenDelta]] = {}
        self._finished: dict[tuple[int, int], generation_pb.GeneratedSequence] = {}

    def feed(self, event: model_pb.GenerateStreamResponse) -> list[TokenDelta]:
        """Takes an event and returns the deltas that it completes.

        Raises:
            ProtocolError: the pieces of a tensor do not fit together.
        """
        match event.WhichOneof("event"):
            case "started":
                self._started = event.started
                if self._has_seed:
                    generation_config.warn_of_unused_seed(event.started.effective_config)
            case "finished":
                sequence = event.finished.sequence
                self._finished[sequence.prompt_index, sequence.sequence_index] = sequence
            case "completed":
                self._completed = event.completed
        deltas = list(self._reader.read(event))
        for delta in deltas:
            kept = delta if self._keep_scores else replace(delta, scores=(), prompt_scores=())
            self._deltas.setdefault((delta.prompt_index, delta.sequence_index), []).append(kept)
        return deltas

    @property
    def session_id(self) -> str:
        """The session that a complete generation has left behind; empty if there is none."""
        return "" if self._completed is None else self._completed.session_id

    def result(self) -> Generation:
        """Returns the result.

        Raises:
            ProtocolError: the stream ended before the generation did.
            LockstepError: a sequence failed, and its error is not to be returned.
        """
        generation = self.generation()
        return generation.raise_for_errors() if self._raises else generation

    def generation(self) -> Generation:
        """Returns the result, with the errors of sequences in it.

        Raises:
            ProtocolError: the stream ended before the generation did.
        """
        if self._started is None or self._completed is None:
            raise ProtocolError("The stream ended before the generation was complete.")
        started, completed = self._started, self._completed
        return Generation(
            details=tuple(self._sequence(key) for key in sorted(self._finished)),
            effective_config=generation_config.to_dict(started.effective_config),
            applied_processors=tuple(started.applied_processors),
            vocabulary=VocabularyRef.from_message(started.vocabulary),
            usage=results.Usage.from_message(completed.usage),
            timing=results.Timing.from_message(completed.timing),
            determinism=Determinism.from_message(started.determinism),
            session_id=completed.session_id,
            prompts=batches.rows_of(self._prompt),
        )

    def _sequence(self, key: tuple[int, int]) -> GeneratedSequence:
        message, deltas = self._finished[key], self._deltas.get(key, [])
        failed = message.HasField("error")
        scored = message.HasField("sequence_score")
        return GeneratedSequence(
            prompt_index=message.prompt_index,
            sequence_index=message.sequence_index,
            token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
            finish_reason=results.finish_reason(message.finish_reason),
            seed=message.seed,
            scores=tuple(position for delta in deltas for position in delta.scores),
            prompt_scores=tuple(position for delta in deltas for position in delta.prompt_scores),
            stop_string=message.stop_string,
            sequence_score=message.sequence_score if scored else None,
            beam_indices=tuple(message.beam_indices),
            error=self._error(message) if failed else None,
        )

    def _error(self, message: generation_pb.GeneratedSequence) -> LockstepError:
        """Returns why a sequence failed; where no token was left, with what took them away."""
        error = status.from_item_error(message.error)
        if isinstance(error, NoTokenLeft) and self._started is not None:
            applied = ", ".join(self._started.applied_processors)
            error.args = (f"{error} Applied were: {applied}.",)
        return error


def _row_type(selection: scores_pb.ScoreSelection) -> tensor_pb.DataType:
    return selection.dtype or tensor_pb.DATA_TYPE_FLOAT32
