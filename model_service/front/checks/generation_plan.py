"""From a `GenerateRequest` to what the engine runs, and to what the caller is told about it.

`Generate`, `GenerateStream` and `ValidateRequest` all go through here, so a dry
run and a real one cannot disagree.
"""

from dataclasses import dataclass

from lockstep.v1 import generation_pb2, model_service_pb2

from model_service.front.checks import branches, seeds
from model_service.front.checks.cache_salt import read_salt
from model_service.front.checks.configuration import ResolvedConfig, effective_message, resolve
from model_service.front.checks.lengths import PromptLengths, check_max_length, fit_context
from model_service.front.checks.processor_catalog import catalog
from model_service.front.checks.prompts import Bounds, read_padding, read_prompts
from model_service.front.checks.response_size import generation_bytes
from model_service.front.checks.selection import asks_for_anything, read_selection
from model_service.protocol import EngineInfo, SequenceSpec
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.processor_order import applied_processors
from vocabulary import Reference
from wire.token_ids import check_token_ids
from wire.violations import Violations

MAX_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What bounds one call.

    Attributes:
        max_sequences_per_call: prompts times sequences per prompt.
        max_selected_tokens: largest `top_k` and longest id list of a selection.
    """

    max_sequences_per_call: int
    max_selected_tokens: int


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """A checked generation.

    Attributes:
        sequences: rows by prompt and then by index among its sequences.
        resolved: the configuration.
        seed: the call's seed; None when the prompts have seeds of their own.
        selection: what is returned about generated tokens, or None.
        prompt_selection: what is returned about prompt tokens, or None.
        priority: lower goes first.
        cache_salt: whose KV cache may be reused; None for nobody's.
        vocabulary: the vocabulary that the ids belong to.
        kv_tokens: tokens of KV cache that are reserved.
        response_bytes: most bytes that an answer in one message can have.
    """

    sequences: list[SequenceSpec]
    resolved: ResolvedConfig
    seed: int | None
    selection: ScoreSelection | None
    prompt_selection: ScoreSelection | None
    priority: int
    cache_salt: str | None
    vocabulary: Reference
    kv_tokens: int
    response_bytes: int

    @property
    def effective_config(self) -> generation_pb2.GenerationConfig:
        """The configuration with every field resolved, for the caller."""
        return effective_message(self.resolved, self.seed)

    @property
    def applied_processors(self) -> list[str]:
        """Names of the active processors, in order."""
        return applied_processors(self.resolved.config)

    @property
    def answers_at_once(self) -> bool:
        """Whether nothing is known before the end, so that a stream sends everything then."""
        return self.resolved.config.num_beams > 1

    @property
    def num_rows(self) -> int:
        """Rows of a step that the sequences take."""
        num_prompts = len(self.sequences) // self.resolved.num_return_sequences
        return num_prompts * branches.rows_per_prompt(self.resolved)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        firsts = self.sequences[:: self.resolved.num_return_sequences]
        return sum(len(spec.prompt_token_ids) for spec in firsts)

    def indices(self, row: int) -> tuple[int, int]:
        """Returns the prompt index and the index among its sequences of a row."""
        return divmod(row, self.resolved.num_return_sequences)


def plan(
    request: model_service_pb2.GenerateRequest,
    vocabulary: Reference,
    info: EngineInfo,
    limits: PlanLimits,
) -> GenerationPlan:
    """Checks a request and resolves everything that it leaves open.

    Args:
        request: the request.
        vocabulary: the revision that its ids belong to.
        info: what the model is.
        limits: the server's bounds.

    Raises:
        InvalidField: one or more fields are wrong.
        TokenIdOutOfRange: an id is not in the vocabulary.
        ContextLengthExceeded: a row does not fit the model's context.
        KVCacheExceeded: a row does not fit the KV cache.
        NotImplemented_: a feature asked for is not offered.
    """
    violations = Violations()
    bounds = Bounds(limits.max_sequences_per_call, info.context_length)
    prompts = read_prompts(request.prompt, violations, bounds)
    resolved = resolve(
        request.generation_config,
        info.default_config,
        violations,
        vocabulary_size=vocabulary.size,
        max_return_sequences=limits.max_sequences_per_call,
        context_length=info.context_length,
        without_rows=info.ids_without_rows,
        catalog=catalog(info),
    )
    selection, prompt_selection = read_selections(
        request, violations, vocabulary.size, limits, min(map(len, prompts), default=0)
    )
    lengths = PromptLengths(
        [len(prompt) for prompt in prompts],
        read_padding(request.prompt, prompts, resolved, violations),
    )
    check_max_length(resolved, lengths, violations)
    _check_call(request, prompts, resolved, violations, limits)
    branches.check_generation(resolved, info, violations, prompt_selection=prompt_selection)
    salt = read_salt(request.cache_salt, violations)
    reuses = request.use_prefix_cache or not request.HasField("use_prefix_cache")
    violations.check()
    check_token_ids("prompt", prompts, vocabulary.size, info.ids_without_rows)
    resolved, num_new = fit_context(resolved, lengths, info.context_length)
    kv_tokens = branches.kv_tokens(lengths.tokens, num_new, resolved, info)
    fitting = [
        min(new, info.context_length - tokens)
        for new, tokens in zip(num_new, lengths.tokens, strict=True)
    ]
    sequences, seed = _seed_sequences(request, prompts, lengths.padding, num_new, resolved)
    return GenerationPlan(
        sequences=sequences,
        resolved=resolved,
        seed=seed,
        selection=selection,
        prompt_selection=prompt_selection,
        priority=request.priority,
        cache_salt=salt if reuses else None,
        vocabulary=vocabulary,
        kv_tokens=kv_tokens,
        response_bytes=generation_bytes(
            lengths.tokens, fitting, resolved, selection, prompt_selection, vocabulary.size
        ),
    )


def read_selections(
    request: model_service_pb2.GenerateRequest,
    violations: Violations,
    vocabulary_size: int,
    limits: PlanLimits,
    shortest_prompt: int,
) -> tuple[ScoreSelection | None, ScoreSelection | None]:
    """Reads what is returned about new tokens and about those of the prompt, None for nothing."""
    selection = read_selection(
        request.scores,
        "scores",
        violations,
        use="new",
        vocabulary_size=vocabulary_size,
        max_selected_tokens=limits.max_selected_tokens,
    )
    prompt_selection = read_selection(
        request.prompt_scores,
        "prompt_scores",
        violations,
        use="prompt",
        vocabulary_size=vocabulary_size,
        max_selected_tokens=limits.max_selected_tokens,
        given_tokens=max(0, shortest_prompt - 1),  # behind the last one is a new token
    )
    return (
        selection if asks_for_anything(request.scores) else None,
        prompt_selection if asks_for_anything(request.prompt_scores) else None,
    )


def _check_call(
    request: model_service_pb2.GenerateRequest,
    prompts: list[list[int]],
    resolved: ResolvedConfig,
    violations: Violations,
    limits: PlanLimits,
) -> None:
    num_rows = len(prompts) * branches.rows_per_prompt(resolved)
    if num_rows > limits.max_sequences_per_call:
        violations.add(
            "prompt",
            f"asks for {num_rows} sequences; one call may ask for {limits.max_sequences_per_call}",
        )
    shortest = min(map(len, prompts), default=0)
    if resolved.config.prompt_ignore_length > shortest:
        violations.add(
            "generation_config.prompt_ignore_length",
            f"must be at most the length of the shortest prompt, {shortest}",
        )
    if not -MAX_PRIORITY <= request.priority <= MAX_PRIORITY:
        violations.add("priority", f"must be in [-{MAX_PRIORITY}, {MAX_PRIORITY}]")
    if not request.seeds:
        return
    if len(request.seeds) != len(prompts):
        violations.add("seeds", f"must have one seed per prompt, {len(prompts)}")
    if min(request.seeds) < 0:
        violations.add("seeds", "must be in [0, 2^63)")
    if resolved.seed is not None and not request.generation_config.lenient:
        violations.add("generation_config.seed", "has no effect beside seeds; leave one out")


def _seed_sequences(
    request: model_service_pb2.GenerateRequest,
    prompts: list[list[int]],
    padding: list[int],
    num_new: list[int],
    resolved: ResolvedConfig,
) -> tuple[list[SequenceSpec], int | None]:
    """Gives every row the seed that reproduces it alone, see `seeds.sequence_seed`."""
    seed = seeds.random_seed() if resolved.seed is None else resolved.seed
    sequences = []
    for index, prompt in enumerate(prompts):
        base, prompt_index = (request.seeds[index], 0) if request.seeds else (seed, index)
        for sequence_index in range(resolved.num_return_sequences):
            # The sequences of one search come from the same draws.
            index_of_draws = 0 if resolved.config.num_beams > 1 else sequence_index
            row_seed = seeds.sequence_seed(base, prompt_index, index_of_draws)
            sequences.append(SequenceSpec(prompt, row_seed, num_new[index], padding[index]))
    return sequences, None if request.seeds else seed
