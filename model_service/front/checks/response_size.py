"""How large an answer can become and may be, computed before anything runs."""

from dataclasses import dataclass

from model_service.front.checks.configuration import ResolvedConfig
from model_service.front.checks.selection import num_positions, position_bytes
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_order import applied_processors
from rpc.errors import ResponseTooLarge
from wire.tensors import FLOAT_BYTES

MAX_CHUNK_BYTES = 2**20
_TOKEN_BYTES = 6  # an id, as a varint with its share of tags
_BEAM_BYTES = 5  # an index of a beam
_SEQUENCE_BYTES = 128
_ROW_BYTES = 64


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """Bounds of answers.

    Attributes:
        max_message_bytes: most bytes of a message.
        max_step_bytes: most bytes of an answer to a step that comes in several messages.
    """

    max_message_bytes: int
    max_step_bytes: int

    @property
    def max_chunk_bytes(self) -> int:
        """Most bytes of scores in a message of a stream; what is around them may take as many."""
        return min(MAX_CHUNK_BYTES, self.max_message_bytes // 2)

    def check_message(self, num_bytes: int, remedy: str) -> None:
        """Checks an answer in one message.

        Args:
            num_bytes: most bytes that it can have.
            remedy: what to ask for instead, a sentence.

        Raises:
            ResponseTooLarge: it may not fit.
        """
        if num_bytes > self.max_message_bytes:
            raise ResponseTooLarge(num_bytes, self.max_message_bytes, remedy)

    def check_step(self, num_bytes: int, num_row_bytes: int, remedy: str) -> None:
        """Checks an answer to a step whose full rows may follow it.

        Args:
            num_bytes: most bytes that it can have.
            num_row_bytes: the bytes of full rows among them.
            remedy: as of `check_message`.

        Raises:
            ResponseTooLarge: it is larger than is kept until it is sent, or may not fit
                one message without the rows.
        """
        if num_bytes > self.max_step_bytes:
            raise ResponseTooLarge(num_bytes, self.max_step_bytes, remedy)
        inline_bytes = min(num_row_bytes, self.max_chunk_bytes)
        self.check_message(num_bytes - num_row_bytes + inline_bytes, remedy)


def generation_bytes(
    num_prompt_tokens: list[int],
    num_new_tokens: list[int],
    resolved: ResolvedConfig,
    selection: ScoreSelection | None,
    prompt_selection: ScoreSelection | None,
    vocabulary_size: int,
) -> int:
    """Returns the most bytes of the sequences of a generation in one message.

    All beams of a search count, returned or not: it keeps what they are asked for to its end.

    Args:
        num_prompt_tokens: of each prompt.
        num_new_tokens: most tokens of each sequence.
        resolved: how many sequences of each prompt there will be.
        selection: what is returned about each new token, or None.
        prompt_selection: what is returned about each prompt token, or None.
        vocabulary_size: width of a full row.
    """
    num_beams = resolved.config.num_beams
    token = _TOKEN_BYTES + (_BEAM_BYTES if num_beams > 1 else 0)
    if selection is not None:
        token += _position_bytes(selection, vocabulary_size, resolved.config)
    total = sum(_SEQUENCE_BYTES + count * token for count in num_new_tokens)
    if prompt_selection is not None:
        positions = sum(num_positions(prompt_selection, count) for count in num_prompt_tokens)
        total += positions * _position_bytes(prompt_selection, vocabulary_size, resolved.config)
    return total * max(resolved.num_return_sequences, num_beams)


def distribution_bytes(
    selection: ScoreSelection,
    num_given_tokens: list[int],
    config: GenerationConfig,
    vocabulary_size: int,
) -> int:
    """Returns the most bytes of the distributions of rows that were given tokens.

    Args:
        selection: what is returned about each.
        num_given_tokens: tokens given to each row.
        config: what is applied.
        vocabulary_size: width of a full row.
    """
    positions = sum(num_positions(selection, count) for count in num_given_tokens)
    position = _position_bytes(selection, vocabulary_size, config)
    return _ROW_BYTES * len(num_given_tokens) + positions * position


def row_bytes(selection: ScoreSelection, num_given_tokens: list[int], vocabulary_size: int) -> int:
    """Returns the bytes of the full rows alone. Parameters as of `distribution_bytes`."""
    if selection.amount != "full":
        return 0
    positions = sum(num_positions(selection, count) for count in num_given_tokens)
    kinds = selection.logits + selection.scores
    return positions * kinds * vocabulary_size * FLOAT_BYTES[selection.dtype]


def _position_bytes(
    selection: ScoreSelection, vocabulary_size: int, config: GenerationConfig
) -> int:
    traced = applied_processors(config) if selection.processor_trace else []
    return position_bytes(selection, vocabulary_size, traced)
