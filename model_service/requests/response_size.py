"""How large a response can become, computed before anything runs."""

from model_service.active_processors import applied_processors
from model_service.generation import GenerationConfig, ScoreSelection
from model_service.requests.configuration import ResolvedConfig
from model_service.requests.selection import num_positions, position_bytes

_TOKEN_BYTES = 6  # an id, as a varint with its share of tags
_BEAM_BYTES = 5  # an index of a beam
_SEQUENCE_BYTES = 128
_ROW_BYTES = 64


def generation_bytes(
    prompts: list[list[int]],
    resolved: ResolvedConfig,
    selection: ScoreSelection | None,
    prompt_selection: ScoreSelection | None,
    vocabulary_size: int,
) -> int:
    """Returns the most bytes of the sequences of a generation in one message.

    All beams of a search count, returned or not: it keeps what they are asked for to its end.

    Args:
        prompts: ids of each prompt.
        resolved: how many sequences and tokens there will be at most.
        selection: what is returned about each new token, or None.
        prompt_selection: what is returned about each prompt token, or None.
        vocabulary_size: width of a full row.
    """
    applied = applied_processors(resolved.config)
    num_beams = resolved.config.num_beams
    token = _TOKEN_BYTES + (_BEAM_BYTES if num_beams > 1 else 0)
    if selection is not None:
        token += position_bytes(selection, vocabulary_size, applied)
    total = len(prompts) * (_SEQUENCE_BYTES + resolved.config.max_new_tokens * token)
    if prompt_selection is not None:
        positions = sum(num_positions(prompt_selection, len(prompt)) for prompt in prompts)
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
