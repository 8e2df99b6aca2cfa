"""Keywords of methods. One that is missing, or None, is unset.

In the template a class says with `Fields:` which messages of the schema have its keywords.
One without a text of its own has the comment of the field of that name, or of the field
named in its place. `GenerationOptions` gets every field of its message, and here are those
that callers give in another shape than the schema's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from lockstep_client._values.batch import PaddingSide
from lockstep_client._values.selection import ScoreSelection
from lockstep_client._values.session_retention import SessionRetention
from lockstep_client._values.vocabulary_ref import VocabularyRef

Ids = Sequence[int]
OffsetUnit = Literal["bytes", "code_points", "utf16"]
PaddingStrategy = bool | Literal["longest", "max_length"]


class GenerationOptions(TypedDict, total=False):
    """Keywords of every method that generates.

    Fields: GenerationConfig
    """

    stop_strings: str | Sequence[str]
    eos_token_id: int | Ids
    forced_eos_token_id: int | Ids
    exponential_decay_length_penalty: tuple[int, float]
    logit_bias: Mapping[int, float]
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Ids, float]]
    seed_mode: Literal["counter", "torch"]
    early_stopping: bool | Literal["never"]
    negative_prompt: Ids | str
    processors: Sequence[str | tuple[str, Mapping[str, Any] | str]]
    generation_config: Any
    """Keywords in one: a mapping, or a `GenerationConfig` of Hugging Face's, of which what
    differs from its defaults counts. Those that are given beside it go first."""


class ManyOptions(TypedDict, total=False):
    """Keywords of calls that take any number of rows."""

    errors: Literal["raise", "return"]
    """What is done when rows fail: `raise` ends the call with the first error; `return` goes on
    with the other rows, and has the error in the place of the row's result, or in the `errors` of
    a batch. Unset means `raise`."""
    progress: bool
    """Whether a bar shows how many rows are done. Unset means False."""
    concurrency: int | None
    """Most requests at a time, where a call takes several. Unset means as many as keep the
    service busy and leave others room."""


class PromptOptions(GenerationOptions, total=False):
    """Keywords in place of prompts, as `**batch` gives them, in addition to `GenerationOptions`."""

    input_ids: Any
    """Ids of the prompts, `[B, S]` integers, or rows of ids. Unset where prompts are given."""
    attention_mask: Any
    """`[B, S]` integers, 1 at tokens and 0 at padding. Unset means that all are tokens."""
    position_ids: Any
    """`[B, S]` integers. Unset means the cumulative sum of the mask minus one."""


class GenerateOptions(PromptOptions, total=False):
    """Keywords of `generate` and `stream`, in addition to `PromptOptions`.

    Fields: GenerateRequest
    """

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means False."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """What to return about each generated token, instead of the three. Unset means nothing."""
    prompt_selection: ScoreSelection | None
    """prompt_scores"""
    errors: Literal["raise", "return"]
    """What is done when a sequence fails by itself: its error is raised once all of its request
    have ended, or returned in its `details` beside the other sequences. Unset means `raise`."""
    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for
    ids without one the newest that this client has seen, or a newer one."""
    seeds: Sequence[int]
    priority: int
    cache_salt: str
    use_prefix_cache: bool
    keep_session: SessionRetention | bool


class ScoreOptions(PromptOptions, total=False):
    """Keywords of `score` and `compute_logits`, in addition to `PromptOptions`."""

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means False for `score`, True for
    `compute_logits` without a `selection`."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """What to return about each token. Unset means its log-probability alone for `score`,
    and full rows of logits for `compute_logits`."""
    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for
    ids without one the newest that this client has seen, or a newer one."""


class DistributionOptions(PromptOptions, total=False):
    """Keywords of `distribution`, in addition to `PromptOptions`."""

    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for
    ids without one the newest that this client has seen, or a newer one."""


class SessionOptions(PromptOptions, total=False):
    """Keywords of `open_session`, in addition to `PromptOptions`.

    `max_length` is here the most tokens that a row will hold, prompt included: memory is
    reserved for them. Range: [longest prompt, context]. Unset means the server's default.

    Fields: OpenSessionRequest, StepSampling
    """

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means True, unless
    `selection` is given."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """scores"""
    ttl_s: float
    """ttl"""
    reopen: bool
    """Whether the session is opened again by itself, with `reopen`, where a call of it finds it
    lost. Unset means False."""
    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for
    ids without one the newest that this client has seen, or a newer one."""
    cache_salt: str
    sample: bool
    """Whether the server chooses the first token of each row. Unset means False."""
    append: bool


class StepOptions(TypedDict, total=False):
    """Keywords of `step`.

    Fields: StepRequest, StepSampling
    """

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means True, unless
    `selection` is given."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """scores"""
    sample: bool
    """Whether the server chooses the next token of each stepped row. Unset means False."""
    append: bool
    look_ahead: bool
    step_id: str


class PaddingOptions(TypedDict, total=False):
    """Keywords that say how a batch is padded.

    Fields: PaddingOptions
    """

    padding: PaddingStrategy
    """`longest` or True pads to the longest row, `max_length` to that length, False not at all.
    Unset means False, and `longest` for `pad`."""
    padding_side: PaddingSide
    """side"""
    pad_to_multiple_of: int
    max_length: int
    """Length for `padding="max_length"`, and longest row for `truncation`, in ids, special
    tokens included; both need it. Range: [1, 2^20]."""
    pad_token_id: int


class CuttingOptions(PaddingOptions, total=False):
    """Keywords of calls that can also cut rows, in addition to `PaddingOptions`.

    Fields: TruncationOptions, EncodeOptions
    """

    truncation: bool
    """Whether rows are cut to `max_length`. Unset means False."""
    truncation_side: PaddingSide
    """side"""
    parse_special_tokens: bool


class EncodeOptions(CuttingOptions, ManyOptions, total=False):
    """Keywords of `encode`, in addition to `CuttingOptions`, `PaddingOptions`, `ManyOptions`.

    Fields: EncodeOptions, EncodeRequest
    """

    add_special_tokens: bool
    return_offsets: OffsetUnit
    """offset_unit"""
    return_special_tokens_mask: bool
    return_word_ids: bool
    return_tokens: bool
    return_token_bytes: bool
    return_token_type_ids: bool
    min_revision: int


class ChatOptions(CuttingOptions, total=False):
    """Keywords of `apply_chat_template`, in addition to `CuttingOptions` and `PaddingOptions`.

    Fields: ApplyChatTemplateRequest
    """

    add_generation_prompt: bool
    continue_final_message: bool
    template_name: str
    tools: Sequence[Mapping[str, Any]]
    """Tools, given to the template."""
    documents: Sequence[Mapping[str, Any]]
    """Documents, given to the template."""
    template_arguments: Mapping[str, Any]
    """Further variables of the template."""


class DecodeOptions(ManyOptions, total=False):
    """Keywords of `decode`, in addition to `ManyOptions`.

    Fields: DecodeOptions, DecodeRequest
    """

    skip_special_tokens: bool | None
    clean_up_tokenization_spaces: bool | None
    return_bytes: bool
    check_round_trip: bool


class CompletionOptions(GenerationOptions, total=False):
    """Keywords of `Lockstep.generate` and `.stream`, in addition to `GenerationOptions`.

    A `negative_prompt` may be a text, which is encoded as a prompt is.

    Fields: EncodeOptions, DecodeOptions
    """

    add_special_tokens: bool
    parse_special_tokens: bool
    skip_special_tokens: bool


class ChangeOptions(TypedDict, total=False):
    """Keywords of every change of the vocabulary.

    Fields: AddTokensRequest
    """

    expected_revision: int | None
    idempotency_key: str | None
    """A UUID. A repeated key returns the first answer and changes nothing. Unset means one
    made for the call."""


class AddOptions(ChangeOptions, total=False):
    """Keywords of `add_tokens`, in addition to `ChangeOptions`.

    Fields: AddTokensRequest
    """

    special: bool
    """Whether tokens given as texts are control tokens. Unset means False."""
    dry_run: bool
    allow_unusual_characters: bool
    allow_text_changes: bool
    texts: Iterable[str]
