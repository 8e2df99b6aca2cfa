"""From what a call asks to the command that the engine gets, and to what the caller is told.

All calls that give the engine rows, or continue the rows of a session, are checked
here, in one order: `Generate` and its dry run, `ComputeLogits`, `Score` and
`OpenSession`. What each of them has of its own is an `Asked`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec
from lockstep.v1 import generation_pb2, scores_pb2

from model_service.front.checks.configuration import ResolvedConfig, effective_message, resolve
from model_service.front.checks.processor_catalog import catalog
from model_service.front.checks.rows import PromptLengths
from model_service.front.checks.selection import Use, asks_for_anything, read_selection
from model_service.protocol import EngineInfo, SequenceSpec
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.parameters import IMPLYING_OFF, GenerationConfig
from model_service.protocol.processor_order import applied_processors
from rpc import identity
from rpc.identity import Role
from vocabulary import Reference
from wire.token_ids import check_token_ids
from wire.violations import Violations

MAX_PRIORITY = 1000
MAX_SALT_LENGTH = 256

C = TypeVar("C", covariant=True)


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
class Plan(Generic[C]):
    """A checked call.

    Attributes:
        command: what the engine gets.
        sequences: rows by prompt and then by index among its sequences.
        resolved: the configuration.
        seed: the seed that the rows' seeds come from; None when they have their own.
        vocabulary: the vocabulary that the ids belong to.
        kv_tokens: tokens of KV cache that are reserved.
        response_bytes: most bytes that an answer in one message can have.
    """

    command: C
    sequences: list[SequenceSpec]
    resolved: ResolvedConfig
    seed: int | None
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
    def prompt_lengths(self) -> list[int]:
        """Tokens of each prompt."""
        firsts = self.sequences[:: self.resolved.num_return_sequences]
        return [len(spec.prompt_token_ids) for spec in firsts]

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(self.prompt_lengths)

    def indices(self, row: int) -> tuple[int, int]:
        """Returns the prompt index and the index among its sequences of a row."""
        return divmod(row, self.resolved.num_return_sequences)


@dataclass(frozen=True, slots=True)
class Checked:
    """The fields of a call, each right by itself.

    Attributes:
        resolved: the configuration.
        selection: what is returned about tokens, or None.
        prompt_selection: what is returned about prompt tokens, or None.
        salt: KV cache of the same salt may be reused; None for no reuse.
        vocabulary: the vocabulary that the ids belong to.
        info: what the model is.
    """

    resolved: ResolvedConfig
    selection: ScoreSelection | None
    prompt_selection: ScoreSelection | None
    salt: str | None
    vocabulary: Reference
    info: EngineInfo


@dataclass(slots=True, kw_only=True)
class Asked(ABC, Generic[C]):
    """What a call asks. Subclasses say what its kind of call cannot have, and what it becomes.

    Attributes:
        violations: what was wrong so far; everything is reported in one answer.
        rows: ids of each row.
        padding: that each came with, as far as lengths count it; empty for none.
        config: the request's configuration; None means that no processor is applied.
        defaults: what unset fields of it take; None means the model's own.
        max_return_sequences: most sequences per prompt.
        scores: what to return; None where the request does not say.
        use: which positions make sense in it.
        unsaid: what is returned where it is None.
        prompt_scores: what to return about prompts, or None.
        priority: lower goes first.
        cache_salt: whose KV cache may be reused.
        reuses: whether any may.
    """

    violations: Violations = field(default_factory=Violations)
    rows: list[list[int]]
    padding: list[int] = field(default_factory=list)
    config: generation_pb2.GenerationConfig | None
    defaults: GenerationConfig | None = None
    max_return_sequences: int = 1
    scores: scores_pb2.ScoreSelection | None = None
    use: Use
    unsaid: ScoreSelection | None = None
    prompt_scores: scores_pb2.ScoreSelection | None = None
    priority: int = 0
    cache_salt: str = ""
    reuses: bool = True

    @property
    def prompt_lengths(self) -> list[int]:
        """Tokens of each row that count as its prompt."""
        return [len(row) for row in self.rows]

    @property
    def lengths(self) -> PromptLengths:
        """Lengths of the rows."""
        tokens = [len(row) for row in self.rows]
        return PromptLengths(tokens, self.padding or [0] * len(tokens))

    @abstractmethod
    def settle(
        self, resolved: ResolvedConfig, info: EngineInfo, limits: PlanLimits
    ) -> ResolvedConfig:
        """Notes what this kind of call cannot have, and turns off defaults that it has not."""

    @abstractmethod
    def fit(self, checked: Checked) -> Plan[C]:
        """Makes the rows fit the model, and the command of them.

        Raises:
            InvalidField: a length of the request is wrong.
            ContextLengthExceeded: a row does not fit.
            KVCacheExceeded: the rows need more KV cache than there is.
        """


def plan(asked: Asked[C], vocabulary: Reference, info: EngineInfo, limits: PlanLimits) -> Plan[C]:
    """Checks a call and resolves everything that it leaves open.

    Args:
        asked: the call.
        vocabulary: the revision that its ids belong to.
        info: what the model is.
        limits: the server's bounds.

    Raises:
        InvalidField: one or more fields are wrong.
        TokenIdOutOfRange: an id is not in the vocabulary.
        ContextLengthExceeded: a row does not fit.
        KVCacheExceeded: the rows need more KV cache than there is.
        NotImplemented_: a feature asked for is not offered.
        Unauthenticated, PermissionDenied: the caller may not go before others.
    """
    violations = asked.violations
    resolved = asked.settle(_resolve(asked, vocabulary, info), info, limits)
    selection, prompt_selection = _selections(asked, vocabulary.size, limits)
    shortest = min(asked.prompt_lengths, default=0)
    if resolved.config.prompt_ignore_length > shortest:
        violations.add(
            "generation_config.prompt_ignore_length",
            f"must be at most the length of the shortest prompt, {shortest}",
        )
    if not -MAX_PRIORITY <= asked.priority <= MAX_PRIORITY:
        violations.add("priority", f"must be in [-{MAX_PRIORITY}, {MAX_PRIORITY}]")
    salt: str | None = read_salt(asked.cache_salt, violations)
    violations.check()
    if asked.priority < 0:
        identity.require(Role.MODEL_ADMIN)
    check_token_ids("prompt", asked.rows, vocabulary.size, info.ids_without_rows)
    if not asked.reuses:
        salt = None
    return asked.fit(Checked(resolved, selection, prompt_selection, salt, vocabulary, info))


def _resolve(asked: Asked[C], vocabulary: Reference, info: EngineInfo) -> ResolvedConfig:
    config, defaults = asked.config, asked.defaults or info.default_config
    if config is None:
        config = generation_pb2.GenerationConfig()
        defaults = msgspec.structs.replace(defaults, do_sample=False, **IMPLYING_OFF)
    return resolve(
        config,
        defaults,
        asked.violations,
        vocabulary_size=vocabulary.size,
        max_return_sequences=asked.max_return_sequences,
        context_length=info.context_length,
        without_rows=info.ids_without_rows,
        not_generable=info.not_generable,
        catalog=catalog(info),
    )


def _selections(
    asked: Asked[C], vocabulary_size: int, limits: PlanLimits
) -> tuple[ScoreSelection | None, ScoreSelection | None]:
    """Reads what is returned about new tokens and about prompt tokens."""
    shortest = min(map(len, asked.rows), default=0)

    def read(
        message: scores_pb2.ScoreSelection, field: str, use: Use, given_tokens: int
    ) -> ScoreSelection | None:
        selection = read_selection(
            message,
            field,
            asked.violations,
            use=use,
            vocabulary_size=vocabulary_size,
            max_selected_tokens=limits.max_selected_tokens,
            given_tokens=given_tokens,
        )
        return selection if asks_for_anything(message) or use not in {"new", "prompt"} else None

    selection, prompt_selection = asked.unsaid, None
    if asked.scores is not None:
        selection = read(asked.scores, "scores", asked.use, shortest)
    if asked.prompt_scores is not None:
        before_new = max(0, shortest - 1)  # behind the last token of a prompt is a new one
        prompt_selection = read(asked.prompt_scores, "prompt_scores", "prompt", before_new)
    return selection, prompt_selection


def read_salt(salt: str, violations: Violations) -> str:
    """Checks a request's salt and makes it one that no other caller can have.

    How long a prompt takes shows whether its beginning was known. Callers that
    can be told apart therefore never share, whatever salts they choose.
    """
    if len(salt) > MAX_SALT_LENGTH:
        violations.add("cache_salt", f"must have at most {MAX_SALT_LENGTH} characters")
    caller = identity.caller()
    return f"{len(caller)}:{caller}{salt}"
