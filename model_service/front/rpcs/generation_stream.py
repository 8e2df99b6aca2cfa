"""Events of a generation to messages of its stream, none of them much larger than 1 MiB."""

from collections.abc import Iterator
from itertools import zip_longest

from lockstep.v1 import model_service_pb2, scores_pb2

from model_service.front.checks.plan import Plan
from model_service.front.rpcs import results
from model_service.front.rpcs.announced_rows import AnnouncedRows
from model_service.protocol import Finish, SequenceTokens
from model_service.protocol.generation import PositionScores

Response = model_service_pb2.GenerateStreamResponse


class StreamWriter:
    """Packs tokens with their scores into messages.

    What one step chose for all rows goes into one message. When the scores do
    not fit, more messages follow; a row that is too large by itself is announced
    under an id and follows in chunks.
    """

    def __init__(self, plan: Plan[object], max_chunk_bytes: int) -> None:
        """Starts a stream.

        Args:
            plan: what the sequences are.
            max_chunk_bytes: most bytes of scores in a message.
        """
        self._plan = plan
        self._max_chunk_bytes = max_chunk_bytes
        self._deltas: list[model_service_pb2.TokenDelta] = []
        self._num_bytes = 0
        self._rows = AnnouncedRows(max_chunk_bytes)

    def write(self, events: list[SequenceTokens]) -> Iterator[Response]:
        """Yields the messages of one step, or of several that came together."""
        for event in events:
            yield from self._write_tokens(event)
        yield from self._flush()
        for event in events:
            if event.finish is not None:
                yield self._finished(event.row, event.finish)

    def _write_tokens(self, event: SequenceTokens) -> Iterator[Response]:
        delta = self._delta(event.row)
        for scores in event.prompt_scores:
            if self._is_full(scores):
                yield from self._flush()
                delta = self._delta(event.row)
            delta.prompt_scores.append(self._position_scores(scores))
        for token_id, token_scores in zip_longest(event.token_ids, event.scores):
            if token_scores is not None and self._is_full(token_scores):
                yield from self._flush()
                delta = self._delta(event.row)
            delta.token_ids.append(token_id)
            if token_scores is not None:
                delta.scores.append(self._position_scores(token_scores))

    def _delta(self, row: int) -> model_service_pb2.TokenDelta:
        prompt_index, sequence_index = self._plan.indices(row)
        delta = model_service_pb2.TokenDelta(
            prompt_index=prompt_index, sequence_index=sequence_index
        )
        self._deltas.append(delta)
        return delta

    def _is_full(self, scores: PositionScores) -> bool:
        """Says whether a message has to be sent before these scores."""
        num_bytes = _inline_bytes(scores)
        if num_bytes > self._max_chunk_bytes:
            num_bytes = 0  # it will not be in the message
        return self._num_bytes + num_bytes > self._max_chunk_bytes

    def _position_scores(self, scores: PositionScores) -> scores_pb2.PositionScores:
        num_bytes = _inline_bytes(scores)
        if num_bytes > self._max_chunk_bytes:
            return results.position_scores(scores, self._rows.announce)
        self._num_bytes += num_bytes
        return results.position_scores(scores)

    def _flush(self) -> Iterator[Response]:
        deltas = [d for d in self._deltas if d.token_ids or d.prompt_scores]
        self._deltas, self._num_bytes = [], 0
        if deltas:
            yield Response(deltas=model_service_pb2.TokenDeltas(deltas=deltas))
        for chunk in self._rows.chunks():
            yield Response(chunk=chunk)

    def _finished(self, row: int, finish: Finish) -> Response:
        prompt_index, sequence_index = self._plan.indices(row)
        message = Response()
        sequence = message.finished.sequence
        sequence.prompt_index = prompt_index
        sequence.sequence_index = sequence_index
        sequence.seed = self._plan.sequences[row].seed
        results.write_finish(finish, sequence)
        return message


def _inline_bytes(scores: PositionScores) -> int:
    """Estimates the bytes of one position in a message."""
    rows = sum(len(row) for row in (scores.logits, scores.scores) if isinstance(row, bytes))
    trace = sum(len(e.processor) + 24 + 4 * len(e.token_scores) for e in scores.processor_trace)
    return rows + trace + 18 * len(scores.tokens) + 96
