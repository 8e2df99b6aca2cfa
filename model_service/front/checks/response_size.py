"""How large a response can become, computed before anything runs."""

from model_service.front.checks.configuration import ResolvedConfig
from model_service.front.checks.selection import num_positions, position_bytes
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_order import applied_processors
from wire.tensors import FLOAT_BYTES

_TOKEN_BYTES = 6  # an id, as a varint with its share of tags
_BEAM_BYTES = 5  # an index of a beam
_SEQUENCE_BYTES = 128
_ROW_BYTES = 64


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
    applied = applied_processors(resolved.config)
    num_beams = resolved.config.num_beams
    token = _TOKEN_BYTES + (_BEAM_BYTES if num_beams > 1 else 0)
    if selection is not None:
        token += position_bytes(selection, vocabulary_size, applied)
    total = sum(_SEQUENCE_BYTES + count * token for count in num_new_tokens)
    if prompt_selection is not None:
        positions = sum(num_positions(prompt_selection, count) for count in num_prompt_tokens)
        total += positions * position_bytes(prompt_selection, vocabulary_size, applied)
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
    position = position_bytes(selection, vocabulary_size, applied_processors(config))
    return _ROW_BYTES * len(num_given_tokens) + positions * position


def row_bytes(selection: ScoreSelection, num_given_tokens: list[int], vocabulary_size: int) -> int:
    """Returns the bytes of the full rows alone. Parameters as of `distribution_bytes`."""
    if selection.amount != "full":
        return 0
    positions = sum(num_positions(selection, count) for count in num_given_tokens)
    kinds = selection.logits + selection.scores
    return positions * kinds * vocabulary_size * FLOAT_BYTES[selection.dtype]
