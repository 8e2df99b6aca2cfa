"""Arguments of processors, typed: the JSON schemas that callers are told, and what checks them.

Arguments of one value, with the fields that go with it, are made of the rows of
`parameters.py`. Here are those with a shape of their own.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from model_service.protocol.number import Number, whole

_COUNT = whole().meta
_KEY = whole(high=2**63 - 1).meta

BIAS = Number(-100, 100)

# Scores are float32, of at most 3.4e38. Logits of 1e5 (models stay below 1e4), a bias, both
# penalties and a temperature at the ends of these ranges make 1e9 * 1e6 * 1e6 * 1e10 = 1e31.
RUN_BIAS = Number(-1e9, 1e9)

DECAY_FACTOR = Number(0, 100, above_low=True)
CUTOFF = Number(0, 1, above_low=True, below_high=True)

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1, extra_json_schema={"format": "token-id"})]
"""An id of the vocabulary. Ids of arguments are compared with the request's vocabulary by this
format."""

TokenIds = Annotated[tuple[TokenId, ...], Meta(min_length=1)]
Runs = Annotated[tuple[TokenIds, ...], Meta(min_length=1, max_length=64)]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the arguments of a processor."""


class SequenceBiasEntry(Arguments, frozen=True):
    """A run of ids, and what is added to the score of its last one."""

    ids: TokenIds
    bias: Annotated[float, RUN_BIAS.meta]


class SequenceBias(Arguments, frozen=True):
    """Biases of the last ids of runs."""

    sequence_bias: Annotated[tuple[SequenceBiasEntry, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if len({entry.ids for entry in self.sequence_bias}) < len(self.sequence_bias):
            raise ValueError("a run is given twice")


class LogitBiasEntry(Arguments, frozen=True):
    """An id, and what is added to its score."""

    token_id: TokenId
    bias: Annotated[float, BIAS.meta]


class LogitBias(Arguments, frozen=True):
    """Biases of single ids."""

    logit_bias: Annotated[tuple[LogitBiasEntry, ...], Meta(min_length=1, max_length=256)]

    def __post_init__(self) -> None:
        if len({entry.token_id for entry in self.logit_bias}) < len(self.logit_bias):
            raise ValueError("an id is given twice")


class ExponentialDecayLengthPenalty(Arguments, frozen=True):
    """A length, and the growth of scores per token after it."""

    start_index: Annotated[int, _COUNT]
    decay_factor: Annotated[float, DECAY_FACTOR.meta]


class GreenListWatermark(Arguments, frozen=True):
    """Adds to the scores of a share of the ids, chosen by a keyed hash of the tokens before.

    Kirchenbauer et al., "A Watermark for Large Language Models".
    """

    greenlist_ratio: Annotated[float, CUTOFF.meta] = 0.25
    """Share of green tokens."""

    bias: Annotated[float, BIAS.meta] = 2.0
    """Added to the scores of green tokens."""

    hashing_key: Annotated[int, _KEY] = 15485863
    """Key of the hash."""

    self_hash: bool = False
    """Whether the token to choose is part of the hash."""

    context_width: Annotated[int, whole(1).meta] = 1
    """Number of tokens before it that are hashed."""


class SynthIdWatermark(Arguments, frozen=True):
    """Moves scores by a tournament between the ids, keyed by the generated tokens before.

    Dathathri et al., "Scalable watermarking for identifying large language model
    outputs". Excluded ids get the lowest finite score instead of `-inf`, as in
    Hugging Face.
    """

    ngram_len: Annotated[int, whole(2, 256).meta]
    """Tokens that are hashed, the one to choose included."""

    keys: Annotated[tuple[Annotated[int, _KEY], ...], Meta(min_length=1, max_length=64)]
    """One key per depth of the tournament."""

    context_history_size: Annotated[int, whole(1, 2**16).meta] = 1024
    """Contexts remembered: a repeated one is left alone."""

    sampling_table_seed: Annotated[int, _KEY] = 0
    """Seed of the table of coin flips."""

    sampling_table_size: Annotated[int, whole(1, 2**20).meta] = 2**16
    """Entries of the table."""

    skip_first_ngram_calls: bool = False
    """Whether the first `ngram_len - 1` tokens are left alone."""


class ProcessorSpec(msgspec.Struct, frozen=True):
    """One processor of an explicit pipeline, checked."""

    name: str
    arguments_json: str
    """A JSON object that its schema accepts, defaults filled in."""


def decode(arguments_json: str, arguments: type[Any]) -> Any:
    """Reads arguments that a caller wrote.

    Args:
        arguments_json: a JSON object; empty means no arguments.
        arguments: the class.

    Raises:
        msgspec.DecodeError: the text is not JSON, or does not fit the class.
    """
    return msgspec.json.decode(arguments_json or "{}", type=arguments)


def bad_words(
    words: tuple[tuple[int, ...], ...], eos_token_ids: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Returns the runs that are kept from being generated.

    Hugging Face leaves out single end-of-sequence ids, so that a list of words
    never keeps a sequence from ending.
    """
    ends = {(token_id,) for token_id in eos_token_ids}
    return [word for word in words if word not in ends]
