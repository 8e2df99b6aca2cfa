"""Requests to `ModelService`, built from keywords. Pure: no I/O."""

from collections.abc import Sequence
from typing import Any, cast

from lockstep.v1 import model_service_pb2 as model_pb

from lockstep_client._requests import generation_config
from lockstep_client._requests.options import (
    DistributionOptions,
    GenerateOptions,
    Ids,
    ScoreOptions,
)
from lockstep_client._values import batch as batches
from lockstep_client._values import selection as selections
from lockstep_client._values import session_retention, token_ids, vocabulary_ref
from lockstep_client._values.batch import Prompts, Row
from lockstep_client._values.choices import choose
from lockstep_client._values.messages import build
from lockstep_client._values.selection import ScoreSelection
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import WrongType, WrongValue


def generate(prompts: Prompts | None, options: GenerateOptions) -> model_pb.GenerateRequest:
    """Builds a `Generate` request.

    Raises:
        TypeError: a keyword does not exist, or has a value of another type.
        ValueError: a value does not fit, or two keywords contradict each other.
    """
    prompts = batches.given(prompts, options)
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
    for name in batches.KEYS:
        if options.get(name) is not None:
            raise WrongType(f"{name}: a session has its rows already; step appends ids to them.")
    request = _generate(options, options.get("vocabulary") or vocabulary)
    request.session_id = session_id
    return request


def raises(options: GenerateOptions) -> bool:
    """Says whether the error of a sequence is raised.

    Raises:
        ValueError: `errors` has another value.
    """
    return choose("errors", options.get("errors") or "raise", {"raise": True, "return": False})


def _generate(
    options: GenerateOptions, vocabulary: VocabularyRef | None
) -> model_pb.GenerateRequest:
    return build(
        model_pb.GenerateRequest,
        generation_config=generation_config.build(options, beside=GenerateOptions),
        scores=selections.message(selections.of(options)),
        prompt_scores=selections.message(options.get("prompt_selection")),
        vocabulary=vocabulary_ref.message(vocabulary),
        seeds=options.get("seeds"),
        priority=options.get("priority"),
        cache_salt=options.get("cache_salt"),
        use_prefix_cache=options.get("use_prefix_cache"),
        keep_session=session_retention.message(options.get("keep_session")),
    )


def score(
    prompts: Prompts | None, continuations: Sequence[Row] | None, options: ScoreOptions
) -> model_pb.ScoreRequest:
    """Builds a `Score` request."""
    prompts = batches.given(prompts, options)
    return build(
        model_pb.ScoreRequest,
        prompt=batches.prompt_message(prompts),
        continuations=None if continuations is None else batches.ragged_message(continuations),
        scores=selections.message(selections.of(options)),
        vocabulary=vocabulary_ref.message(
            options.get("vocabulary") or batches.vocabulary_of(prompts)
        ),
        generation_config=generation_config.build(options, beside=ScoreOptions),
    )


def compute_logits(prompts: Prompts | None, options: ScoreOptions) -> model_pb.ComputeLogitsRequest:
    """Builds a `ComputeLogits` request."""
    prompts = batches.given(prompts, options)
    return build(
        model_pb.ComputeLogitsRequest,
        prompt=batches.prompt_message(prompts),
        scores=selections.message(selections.of(options, logits=True)),
        vocabulary=vocabulary_ref.message(
            options.get("vocabulary") or batches.vocabulary_of(prompts)
        ),
        generation_config=generation_config.build(options, beside=ScoreOptions),
    )


def distribution(
    prompts: Prompts | None, candidates: int | Ids, options: DistributionOptions
) -> model_pb.ComputeLogitsRequest:
    """Builds a `ComputeLogits` request with the trace of every processor.

    Args:
        prompts: as of `compute_logits`.
        candidates: how many of the most probable tokens are reported, or which ids.
        options: see `DistributionOptions`.

    Raises:
        InvalidArgument: `candidates` is neither, or a keyword does not exist or fit.
    """
    generation_config.checked(options, DistributionOptions)
    amount: dict[str, Any] = {"top_k": candidates, "top_k_of_both": True}
    if not isinstance(candidates, int):
        try:
            amount = {"token_ids": token_ids.row(candidates)}
        except WrongType:
            raise WrongType(
                f"candidates is a number of tokens, or a row of ids, not {candidates!r}."
            ) from None
    elif candidates < 1:
        raise WrongValue(f"candidates is at least 1, not {candidates}.")
    selection = ScoreSelection(
        logits=True, scores=True, logsumexp=True, processor_trace=True, **amount
    )
    request = compute_logits(prompts, cast(ScoreOptions, {**options, "selection": selection}))
    request.generation_config.SetInParent()  # the model's own defaults, as in `generate`
    return request
