"""A `GenerateRequest` that continues a session: what its rows bring, what the request may add."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from lockstep.v1 import model_service_pb2

from model_service.front.checks.branches import without_branches
from model_service.front.checks.configuration import resolve
from model_service.front.checks.generation_plan import GenerationPlan, PlanLimits, read_selections
from model_service.front.checks.lengths import PromptLengths, check_max_length, fit_context
from model_service.front.checks.processor_catalog import catalog
from model_service.front.checks.response_size import generation_bytes
from model_service.protocol import EngineInfo, SequenceSpec
from model_service.protocol.parameters import IMPLYING_OFF, GenerationConfig
from vocabulary import Reference
from wire.violations import Violations


@dataclass(frozen=True, slots=True)
class ContinuedRows:
    """What a session brings to a generation.

    Attributes:
        sequences: its rows: the tokens so far, and the seed of the draws.
        config: how it chooses tokens.
        vocabulary: the vocabulary that it is on.
        max_length: tokens that a row has room for.
    """

    sequences: Sequence[SequenceSpec]
    config: GenerationConfig
    vocabulary: Reference
    max_length: int


def plan_continuation(
    request: model_service_pb2.GenerateRequest,
    vocabulary: Reference,
    session: ContinuedRows,
    info: EngineInfo,
    limits: PlanLimits,
) -> GenerationPlan:
    """Checks a request and resolves everything that it leaves open.

    Args:
        request: the request.
        vocabulary: the revision that it names, or the session's.
        session: what it continues.
        info: what the model is.
        limits: the server's bounds.

    Raises:
        InvalidField: one or more fields are wrong, or a row has no tokens.
        TokenIdOutOfRange: an id is not in the vocabulary.
        ContextLengthExceeded: a row has no room for the new tokens.
        NotImplemented_: a feature asked for is not offered.
    """
    violations = Violations()
    _check_what_the_session_brings(request, vocabulary, session, violations)
    resolved = resolve(
        request.generation_config,
        session.config,
        violations,
        vocabulary_size=session.vocabulary.size,
        max_return_sequences=1,
        context_length=info.context_length,
        without_rows=info.ids_without_rows,
        catalog=catalog(info),
    )
    resolved = without_branches(request.generation_config, resolved, violations)
    selection, _ = read_selections(request, violations, session.vocabulary.size, limits, 0)
    rows = [spec.prompt_token_ids for spec in session.sequences]
    for index, row in enumerate(rows):
        if not row:
            violations.add("session_id", f"row {index} has no tokens to go on from")
    lengths = PromptLengths(list(map(len, rows)), [0] * len(rows))
    check_max_length(resolved, lengths, violations)
    violations.check()
    resolved, num_new = fit_context(resolved, lengths, session.max_length)
    fitting = [
        min(new, session.max_length - tokens)
        for new, tokens in zip(num_new, lengths.tokens, strict=True)
    ]
    if not request.generation_config.HasField("min_new_tokens"):
        # It counts from the session's prompt, so the length of this call does not bound it.
        config = msgspec.structs.replace(
            resolved.config, min_new_tokens=session.config.min_new_tokens
        )
        resolved = replace(resolved, config=config)
    return GenerationPlan(
        sequences=[
            msgspec.structs.replace(spec, max_new_tokens=new)
            for spec, new in zip(session.sequences, num_new, strict=True)
        ],
        resolved=resolved,
        seed=None,
        selection=selection,
        prompt_selection=None,
        priority=0,
        vocabulary=session.vocabulary,
        cache_salt=None,
        kv_tokens=session.max_length * len(rows),
        response_bytes=generation_bytes(
            lengths.tokens, fitting, resolved, selection, None, session.vocabulary.size
        ),
    )


def _check_what_the_session_brings(
    request: model_service_pb2.GenerateRequest,
    vocabulary: Reference,
    session: ContinuedRows,
    violations: Violations,
) -> None:
    """Notes fields that contradict the session."""
    for name in ("prompt", "prompt_scores", "keep_session"):
        if request.HasField(name):
            violations.add(name, "must be unset beside session_id")
    if request.seeds or request.generation_config.HasField("seed"):
        field = "seeds" if request.seeds else "generation_config.seed"
        violations.add(field, "must be unset beside session_id: its rows have seeds")
    config = request.generation_config
    if config.lengths_include_padding and not config.lenient:
        violations.add(
            "generation_config.lengths_include_padding",
            "has no effect: rows have no padding; leave it out, or set lenient",
        )
    if session.config.processors and not config.processors and not config.lenient:
        for descriptor, value in config.ListFields():
            if value != IMPLYING_OFF.get(descriptor.name, value):
                violations.add(
                    f"generation_config.{descriptor.name}",
                    "implies a processor, which the session's `processors` replace; set lenient "
                    "to have it ignored",
                )
    if vocabulary.revision != session.vocabulary.revision:
        revision = session.vocabulary.revision
        violations.add("vocabulary.revision", f"must be that of the session, {revision}")
