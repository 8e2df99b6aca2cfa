"""Requests to `LogitsSessionService`, built from keywords. Pure: no I/O."""

from collections.abc import Sequence

from lockstep.v1 import logits_session_service_pb2 as session_pb

from lockstep_client._requests import generation_config
from lockstep_client._requests.options import SessionOptions, StepOptions
from lockstep_client._values import batch as batches
from lockstep_client._values import durations, token_ids, vocabulary_ref
from lockstep_client._values import selection as selections
from lockstep_client._values.batch import Prompts, Row
from lockstep_client._values.choices import check_names
from lockstep_client._values.messages import build
from lockstep_client._values.tensors import Array
from lockstep_client.exceptions import WrongType, WrongValue


def open_session(prompts: Prompts | None, options: SessionOptions) -> session_pb.OpenSessionRequest:
    """Builds an `OpenSession` request.

    Raises:
        TypeError: a keyword does not exist, or has a value of another type.
        ValueError: a value does not fit.
    """
    prompts = batches.given(prompts, options)
    config = {name: value for name, value in options.items() if name != "max_length"}
    return build(
        session_pb.OpenSessionRequest,
        prompt=batches.prompt_message(prompts),
        vocabulary=vocabulary_ref.message(
            options.get("vocabulary") or batches.vocabulary_of(prompts)
        ),
        max_length=options.get("max_length"),
        ttl=durations.message(options.get("ttl_s")),
        scores=selections.message(selections.of(options, logits=True)),
        generation_config=generation_config.build(config, beside=SessionOptions),
        cache_salt=options.get("cache_salt"),
        sampling=_sampling(options),
    )


def step(
    session_id: str,
    rows: Sequence[int | Row] | Array,
    positions: Sequence[int],
    options: StepOptions,
) -> session_pb.StepRequest:
    """Builds a `Step` request that is applied at most once.

    Args:
        session_id: the session.
        rows: for each row an id or a list of ids; an empty list leaves it alone. An array is
            `[B]` or `[B, T]` of any integer type.
        positions: where each row is before the step.
        options: see `StepOptions`.

    Raises:
        ValueError: `rows` has not one entry for each row of the session.
        TypeError: a keyword does not exist, or an id is not a whole number.
    """
    check_names(options, StepOptions)
    if isinstance(rows, str) or not hasattr(rows, "__len__"):
        raise WrongType(f"For each row an id or a list of ids is expected, not {rows!r}.")
    if len(rows) != len(positions):
        raise WrongValue(f"The session has {len(positions)} rows; ids for {len(rows)} were given.")
    return build(
        session_pb.StepRequest,
        session_id=session_id,
        rows=[
            build(session_pb.RowStep, ids=token_ids.one_or_row(ids), expected_position=position)
            for ids, position in zip(rows, positions, strict=True)
        ],
        scores=selections.message(selections.of(options, logits=True)),
        sampling=_sampling(options),
        step_id=options.get("step_id"),
        look_ahead=options.get("look_ahead"),
    )


def _sampling(options: SessionOptions | StepOptions) -> session_pb.StepSampling | None:
    if not options.get("sample"):
        if options.get("append"):
            raise WrongValue("append needs sample=True: it appends what the server chooses.")
        return None
    return build(session_pb.StepSampling, append=options.get("append"))
