"""Requests to `ModelService`, built from keywords. Pure: nothing here calls anybody."""

from collections.abc import Sequence

from lockstep.v1 import model_service_pb2 as model_pb

from lockstep_client._requests import generation_config
from lockstep_client._requests.generation_config import GenerationOptions
from lockstep_client._values import batch as batches
from lockstep_client._values import selection as selections
from lockstep_client._values import session_retention, vocabulary_ref
from lockstep_client._values.batch import Prompts, Row
from lockstep_client._values.selection import ScoreSelection
from lockstep_client._values.session_retention import SessionRetention
from lockstep_client._values.vocabulary_ref import VocabularyRef


class GenerateOptions(GenerationOptions, total=False):
    """Keywords of `generate` and `stream`: those of the configuration, and of the call.

    Attributes:
        output_logits: whether full rows of raw logits are returned.
        output_scores: whether full rows of processed scores are returned.
        selection: what to return about each generated token, instead of the two.
        prompt_selection: what to return about each prompt token.
        vocabulary: the vocabulary that the ids belong to; that of the batch unless
            given.
        seeds: seeds of the rows, one per prompt.
        priority: lower numbers go first.
        cache_salt: keeps reuse of the prompt's KV cache to calls with the same.
        use_prefix_cache: whether KV cache of other prompts may be reused.
        keep_session: whether, or how, the sequences are kept as a session.
    """

    output_logits: bool
    output_scores: bool
    selection: ScoreSelection | None
    prompt_selection: ScoreSelection | None
    vocabulary: VocabularyRef | None
    seeds: Sequence[int]
    priority: int
    cache_salt: str
    use_prefix_cache: bool
    keep_session: SessionRetention | bool


class ScoreOptions(GenerationOptions, total=False):
    """Keywords of `score` and `compute_logits`.

    Attributes:
        selection: what to return about each token.
        vocabulary: the vocabulary that the ids belong to; that of the batch unless
            given.
    """

    selection: ScoreSelection | None
    vocabulary: VocabularyRef | None


def generate(prompts: Prompts, options: GenerateOptions) -> model_pb.GenerateRequest:
    """Builds a `Generate` request.

    Raises:
        TypeError: a keyword does not exist, or has a value of another type.
        ValueError: a value does not fit, or two keywords contradict each other.
    """
    request = _generate(options, options.get("vocabulary") or batches.vocabulary_of(prompts))
    request.prompt.CopyFrom(batches.prompt_message(prompts))
    return request


def continue_session(
    session_id: str, vocabulary: VocabularyRef, options: GenerateOptions
) -> model_pb.GenerateRequest:
    """Builds a `Generate` request that goes on from where the rows of a session are.

    Raises:
        TypeError: a keyword does not exist, or has a value of another type.
        ValueError: a value does not fit, or two keywords contradict each other.
    """
    request = _generate(options, options.get("vocabulary") or vocabulary)
    request.session_id = session_id
    return request


def _generate(
    options: GenerateOptions, vocabulary: VocabularyRef | None
) -> model_pb.GenerateRequest:
    return model_pb.GenerateRequest(
        generation_config=generation_config.build(options, beside=GenerateOptions),
        scores=selections.message(_selection(options)),
        prompt_scores=selections.message(options.get("prompt_selection")),
        vocabulary=vocabulary_ref.message(vocabulary),
        seeds=options.get("seeds"),
        priority=options.get("priority"),
        cache_salt=options.get("cache_salt"),
        use_prefix_cache=options.get("use_prefix_cache"),
        keep_session=session_retention.message(options.get("keep_session")),
    )


def score(
    prompts: Prompts, continuations: Sequence[Row] | None, options: ScoreOptions
) -> model_pb.ScoreRequest:
    """Builds a `Score` request."""
    return model_pb.ScoreRequest(
        prompt=batches.prompt_message(prompts),
        continuations=None if continuations is None else batches.ragged_message(continuations),
        scores=selections.message(options.get("selection")),
        vocabulary=vocabulary_ref.message(
            options.get("vocabulary") or batches.vocabulary_of(prompts)
        ),
        generation_config=generation_config.build(options, beside=ScoreOptions),
    )


def compute_logits(prompts: Prompts, options: ScoreOptions) -> model_pb.ComputeLogitsRequest:
    """Builds a `ComputeLogits` request."""
    return model_pb.ComputeLogitsRequest(
        prompt=batches.prompt_message(prompts),
        scores=selections.message(options.get("selection")),
        vocabulary=vocabulary_ref.message(
            options.get("vocabulary") or batches.vocabulary_of(prompts)
        ),
        generation_config=generation_config.build(options, beside=ScoreOptions),
    )


def _selection(options: GenerateOptions) -> ScoreSelection | None:
    logits, scores = options.get("output_logits", False), options.get("output_scores", False)
    selection = options.get("selection")
    if selection is not None and (logits or scores):
        raise ValueError("Give selection, or output_logits and output_scores, not both.")
    if logits or scores:
        return ScoreSelection(logits=logits, scores=scores, full=True)
    return selection
