"""How tokens are chosen and what is returned about them: own types, no wire, no tensors.

Both sides of the engine's socket read these. A `GenerationConfig` here is fully
resolved and checked: `convert.py` merges a request over the model's defaults
before anything is sent to the engine.
"""

from typing import Literal

import msgspec

from model_service.protocol.processor_arguments import GreenListWatermark, SynthIdWatermark

Dtype = Literal["float32", "float16", "bfloat16"]

FinishReason = Literal[
    "eos_token",
    "stop_token",
    "stop_string",
    "stop_sequence",
    "max_new_tokens",
    "context_length",
    "time_limit",
    "cancelled",
    "error",
]
"""Why a sequence ended. The names are those of the schema, without prefix, in lower case."""


class ProcessorSpec(msgspec.Struct, frozen=True):
    """One processor of an explicit pipeline, checked."""

    name: str
    arguments_json: str
    """A JSON object that its schema accepts, defaults filled in."""


class GenerationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Resolved parameters of a generation. Names and meanings are Hugging Face's.

    Every value is in the range that the schema states; the engine does not
    check again.
    """

    max_new_tokens: int
    """Upper bound on generated tokens, >= 1. Sessions ignore it."""

    max_length: int | None = None
    """Upper bound on prompt and generated tokens, which `max_new_tokens` is then made from, row by
    row; None means that `max_new_tokens` counts. Sessions ignore it."""

    lengths_include_padding: bool = False
    """Whether lengths count the padding that prompts came with."""

    do_sample: bool = False
    """Whether tokens are drawn; False takes the most probable one."""

    seed_mode: Literal["counter", "torch"] = "counter"
    """How draws are made: by `sampling/random.py` or as torch makes them."""

    temperature: float = 1.0
    """Divisor of the logits, > 0."""

    top_k: int = 50
    """Keeps the k highest-scored tokens; 0 turns it off."""

    top_p: float = 1.0
    """Keeps the smallest set that reaches this mass; 1 turns it off."""

    min_tokens_to_keep: int = 1
    """Fewest tokens that a warper keeps, >= 1."""

    repetition_penalty: float = 1.0
    """Penalizes tokens that the sequence already has; 1 turns it off."""

    min_new_tokens: int = 0
    """Tokens generated before an end-of-sequence id is possible."""

    eos_token_ids: tuple[int, ...] = ()
    """Ids that end the sequence with reason `eos_token`."""

    stop_token_ids: tuple[int, ...] = ()
    """Further ids that end the sequence, with reason `stop_token`."""

    stop_sequences: tuple[tuple[int, ...], ...] = ()
    """Runs of generated ids that end the sequence, with reason `stop_sequence`."""

    stop_strings: tuple[str, ...] = ()
    """Texts in the bytes of generated tokens that end the sequence, with reason `stop_string`."""

    max_time: float | None = None
    """Seconds from arrival after which the next token is the last; None means no limit."""

    prompt_lookup_num_tokens: int = 0
    """Guesses of tokens to come that a step verifies; 0 turns it off. Never changes a result."""

    max_matching_ngram_size: int = 2
    """Newest tokens that are compared with earlier ones to find guesses, at most."""

    guidance_scale: float = 1.0
    """Weight of the prompt against `negative_prompt`; 1 turns it off."""

    negative_prompt: tuple[int, ...] | None = None
    """What to be guided away from; None means the last token of the prompt."""

    num_beams: int = 1
    """Beams of a search; 1 means no beam search."""

    length_penalty: float = 1.0
    """Exponent of the length that sums of log-probabilities are divided by. Of beams only."""

    early_stopping: bool | Literal["never"] = False
    """Whether as many finished sequences as beams end a search; False ends it when better ones
    are unlikely, "never" when they are impossible. Of beams only."""

    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    """Added to the score of a run's last id when the ids before it match."""

    encoder_repetition_penalty: float = 1.0
    """Favors tokens of the prompt above 1; 1 turns it off."""

    prompt_ignore_length: int = 0
    """Leading tokens of the prompt that `repetition_penalty` does not see."""

    presence_penalty: float = 0.0
    """Subtracted once from tokens that were generated."""

    frequency_penalty: float = 0.0
    """Subtracted from tokens that were generated, per occurrence."""

    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the scores of single ids. Ids are distinct."""

    no_repeat_ngram_size: int = 0
    """Length of runs that must not repeat; 0 turns it off."""

    encoder_no_repeat_ngram_size: int = 0
    """Length of runs of the prompt that must not be generated; 0 turns it off."""

    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    """Runs that must not be generated. Single end-of-sequence ids among them have no effect."""

    min_length: int = 0
    """Length of prompt and continuation before an end-of-sequence id is possible."""

    allowed_token_ids: tuple[int, ...] | None = None
    """The only ids that may be generated; None means all."""

    forced_prefix: tuple[int, ...] = ()
    """Ids that the continuation begins with."""

    forced_bos_token_id: int | None = None
    """The id that follows a prompt of one token; None turns it off."""

    forced_eos_token_ids: tuple[int, ...] = ()
    """Ids one of which is chosen when only one more token fits the length limit."""

    remove_invalid_values: bool = False
    """Whether NaN and infinities are replaced by finite numbers instead of ending the row."""

    exponential_decay_length_penalty: tuple[int, float] | None = None
    """Generated tokens before end-of-sequence ids are favored, and the growth per token."""

    suppress_tokens: tuple[int, ...] = ()
    """Ids that are never generated."""

    begin_suppress_tokens: tuple[int, ...] = ()
    """Ids that are not generated first."""

    top_h: float | None = None
    """Keeps the highest-scored tokens up to this share of entropy; None turns it off."""

    min_p: float = 0.0
    """Keeps tokens at least this times as probable as the most probable; 0 turns it off."""

    typical_p: float = 1.0
    """Keeps the most typical tokens up to this mass; 1 turns it off."""

    epsilon_cutoff: float = 0.0
    """Drops tokens below this probability; 0 turns it off."""

    eta_cutoff: float = 0.0
    """Drops tokens below a probability that falls with the entropy; 0 turns it off."""

    green_list_watermark: GreenListWatermark | None = None
    """The watermark; None means none."""

    synth_id_watermark: SynthIdWatermark | None = None
    """The other watermark; None means none."""

    renormalize_logits: bool = False
    """Whether scores become log-probabilities at the end."""

    processors: tuple[ProcessorSpec, ...] = ()
    """What is applied instead of what the fields above switch on, in order; empty means those.
    Where it is given, they are all off."""


class ScoreSelection(msgspec.Struct, frozen=True):
    """What is returned about the distribution at each position."""

    logits: bool = False
    """Whether raw logits are returned."""

    scores: bool = False
    """Whether scores (after processors and warpers) are returned."""

    amount: Literal["none", "full", "top_k", "token_ids"] = "none"
    """How much of each row is returned."""

    top_k: int = 0
    """Number of ids for `top_k`."""

    token_ids: tuple[int, ...] = ()
    """Ids for `token_ids`."""

    dtype: Dtype = "float32"
    """Element type of full rows."""

    positions: Literal["last", "new", "all", "list"] = "last"
    """Which positions are reported."""

    position_list: tuple[int, ...] = ()
    """Indices for `list`: 0 is the distribution after the first token given."""

    rank: bool = False
    """Whether the rank of the chosen token is returned."""

    entropy: bool = False
    """Whether the entropy of softmax(logits) is returned."""

    logsumexp: bool = False
    """Whether log-sum-exp of what was asked for is returned."""

    logprob: bool = False
    """Whether log softmax(logits)[token_id] is returned even when nothing else about logits is."""

    processor_trace: bool = False
    """Whether the score of the chosen token after each processor is returned."""


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """One id of a distribution; a value that was not asked for is None."""

    token_id: int
    logit: float | None
    score: float | None


class ProcessorTrace(msgspec.Struct, frozen=True, array_like=True):
    """The score of the chosen token after one processor."""

    processor: str
    score: float


class PositionScores(msgspec.Struct, frozen=True):
    """What was asked for about one position. `Row` values are `[V]` little-endian.

    The distribution at `position` is the one from which the token at that index
    of the sequence was (or will be) chosen.
    """

    position: int
    """Index in the sequence of the token that the distribution predicts."""

    token_id: int | None = None
    """The token at `position`, when there is one."""

    logits: "Row | None" = None
    """Full row of raw logits."""

    scores: "Row | None" = None
    """Full row of scores."""

    dtype: Dtype = "float32"
    """Element type of both rows."""

    tokens: list[TokenScore] = []
    """The ids selected."""

    logits_logsumexp: float | None = None
    scores_logsumexp: float | None = None
    entropy: float | None = None
    rank: int | None = None
    logits_logprob: float | None = None
    """log softmax(logits)[token_id]"""

    scores_logprob: float | None = None
    """log softmax(scores)[token_id]"""

    processor_trace: list[ProcessorTrace] = []


class SharedRow(msgspec.Struct, frozen=True, tag="shared"):
    """A row that lies in the shared ring, see `channel.py`."""

    start: int
    """Number of bytes written to the ring before it, ever."""

    size: int
    """Length in bytes."""


Row = bytes | SharedRow
