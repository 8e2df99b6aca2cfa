"""From prompts to a session in the engine: shared by sessions and by one-off distributions."""

from dataclasses import dataclass, replace

import msgspec
from lockstep.v1 import generation_pb2, scores_pb2

from model_service.front.checks import branches, seeds
from model_service.front.checks.cache_salt import read_salt
from model_service.front.checks.configuration import ResolvedConfig, resolve
from model_service.front.checks.processor_catalog import catalog
from model_service.front.checks.response_size import distribution_bytes
from model_service.front.checks.selection import FULL_LOGITS, Use, read_selection
from model_service.front.served_model import ServedModel
from model_service.protocol import SequenceSpec
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import IMPLYING_OFF
from rpc.errors import ContextLengthExceeded, KVCacheExceeded
from vocabulary import Reference
from wire.token_ids import check_token_ids
from wire.violations import Violations


@dataclass(frozen=True, slots=True)
class Opening:
    """A checked set of rows.

    Attributes:
        sequences: the rows.
        resolved: how scores are processed and tokens are chosen.
        seed: the seed that those of the rows come from; None when each was given its own.
        selection: what is returned about the rows.
        vocabulary: the vocabulary that the ids belong to.
        max_length: tokens of KV cache reserved per row.
        cache_salt: whose KV cache the rows may reuse.
    """

    sequences: list[SequenceSpec]
    resolved: ResolvedConfig
    seed: int | None
    selection: ScoreSelection
    vocabulary: Reference
    max_length: int
    cache_salt: str

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(spec.prompt_token_ids) for spec in self.sequences)


def read_opening(
    rows: list[list[int]],
    config: generation_pb2.GenerationConfig | None,
    scores: scores_pb2.ScoreSelection | None,
    vocabulary: Reference,
    model: ServedModel,
    violations: Violations,
    *,
    max_length: int | None,
    use: Use = "given",
    num_prompt_tokens: list[int] | None = None,
    ids_field: str = "prompt",
    cache_salt: str = "",
    way_out: str,
) -> Opening:
    """Checks the rows of a session.

    Args:
        rows: ids of each row.
        config: the request's configuration; None means that no processor is applied.
        scores: what to return; None means full rows of logits.
        vocabulary: the revision that the ids belong to.
        model: the model.
        violations: what was wrong so far; everything is reported here.
        max_length: tokens reserved per row; None means those of the longest row, which
            then have no length limit.
        use: which positions make sense.
        num_prompt_tokens: leading tokens of each row that count as its prompt; None
            means all.
        ids_field: path of the ids in the request.
        cache_salt: the request's.
        way_out: what to ask for instead of what does not fit one message, a sentence.

    Raises:
        InvalidField: one or more fields are wrong.
        TokenIdOutOfRange: an id is not in the vocabulary.
        ContextLengthExceeded: a row does not fit.
        KVCacheExceeded: the rows need more KV cache than there is.
        NotImplemented_: the model cannot find stop strings.
        ResponseTooLarge: the distributions do not fit one message.
    """
    info = model.info_at(vocabulary)
    defaults = info.default_config
    if config is None:
        config = generation_pb2.GenerationConfig()
        defaults = msgspec.structs.replace(defaults, do_sample=False, **IMPLYING_OFF)
    resolved = resolve(
        config,
        defaults,
        violations,
        vocabulary_size=vocabulary.size,
        max_return_sequences=1,
        context_length=info.context_length,
        without_rows=info.ids_without_rows,
        catalog=catalog(info),
    )
    resolved = branches.without_branches(config, resolved, violations)
    if resolved.config.lengths_include_padding and not resolved.lenient:
        violations.add(
            "generation_config.lengths_include_padding",
            "is applied by Generate only: rows have no padding; leave it out, or set lenient",
        )
    selection = FULL_LOGITS
    if scores is not None:
        selection = read_selection(
            scores,
            "scores",
            violations,
            use=use,
            vocabulary_size=vocabulary.size,
            max_selected_tokens=model.limits.max_selected_tokens,
            given_tokens=min(map(len, rows), default=0),
        )
    if len(rows) > model.limits.max_sequences_per_call:
        most = model.limits.max_sequences_per_call
        violations.add(ids_field, f"has {len(rows)} rows; one call may have {most}")
    longest = max(map(len, rows), default=0)
    if max_length is not None and not longest <= max_length <= info.context_length:
        violations.add("max_length", f"must be in [{longest}, {info.context_length}]")
    salt = read_salt(cache_salt, violations)
    violations.check()
    model.check_stop_strings(resolved.config)
    check_token_ids(ids_field, rows, vocabulary.size, info.ids_without_rows)
    reserved = longest if max_length is None else max_length
    _check_room(rows, reserved, info.context_length, info.kv_total_tokens)
    lengths = [len(row) for row in rows]
    num_bytes = distribution_bytes(selection, lengths, resolved.config, vocabulary.size)
    model.response_limits.check_message(num_bytes, way_out)
    if max_length is None:
        resolved = _without_limit(resolved)
    seed = seeds.random_seed() if resolved.seed is None else resolved.seed
    return Opening(
        sequences=[
            SequenceSpec(
                prompt_token_ids=row,
                seed=seeds.sequence_seed(seed, index, 0),
                num_prompt_tokens=num_prompt_tokens[index] if num_prompt_tokens else None,
            )
            for index, row in enumerate(rows)
        ],
        resolved=resolved,
        seed=seed,
        selection=selection,
        vocabulary=vocabulary,
        max_length=reserved,
        cache_salt=salt,
    )


def _without_limit(resolved: ResolvedConfig) -> ResolvedConfig:
    """Turns off what waits for the last token: the tokens reserved are no limit of the rows."""
    kept = tuple(s for s in resolved.config.processors if s.name != "forced_eos_token_ids")
    config = msgspec.structs.replace(resolved.config, forced_eos_token_ids=(), processors=kept)
    return replace(resolved, config=config)


def _check_room(rows: list[list[int]], reserved: int, context: int, kv_total: int) -> None:
    for index, row in enumerate(rows):
        if len(row) > context:
            raise ContextLengthExceeded(
                row=index, prompt_tokens=len(row), new_tokens=0, context_tokens=context
            )
    if reserved * len(rows) > kv_total:
        raise KVCacheExceeded(kv_tokens=reserved * len(rows), limit_tokens=kv_total)
