"""What the openings of sessions ask, including those that `ComputeLogits` and `Score` make."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
from lockstep.v1 import generation_pb2

from model_service.front.checks import rows
from model_service.front.checks.configuration import ResolvedConfig
from model_service.front.checks.plan import Asked, Checked, Plan, PlanLimits
from model_service.front.checks.response_size import distribution_bytes
from model_service.front.checks.selection import FULL_LOGITS, Use
from model_service.front.checks.sessions import RowOrigin, new_session_id
from model_service.protocol import EngineInfo, OpenSession, SequenceSpec
from model_service.protocol.generation import ScoreSelection
from rpc.errors import ContextLengthExceeded


@dataclass(slots=True, kw_only=True)
class AskedOpening(Asked[OpenSession]):
    """Rows whose distributions are returned, and whose tokens are chosen step by step if at all.

    Attributes:
        max_length: tokens reserved per row; None means those of the longest row, which
            then have no length limit.
        num_prompt_tokens: leading tokens of each row that count as its prompt; None
            means all.
        origins: what each row was in a session that is gone; empty for rows that begin.
        new_id: makes up the name of the session.
        sample: whether the engine chooses the next token of each row.
        append: whether that token is appended.
    """

    use: Use = "given"
    unsaid: ScoreSelection | None = FULL_LOGITS
    max_length: int | None = None
    num_prompt_tokens: list[int] | None = None
    origins: list[RowOrigin] = field(default_factory=list)
    new_id: Callable[[], str] = new_session_id
    sample: bool = False
    append: bool = False

    @property
    def prompt_lengths(self) -> list[int]:
        if self.origins:
            return [origin.num_prompt_tokens for origin in self.origins]
        return self.num_prompt_tokens or [len(row) for row in self.rows]

    def settle(
        self, resolved: ResolvedConfig, info: EngineInfo, limits: PlanLimits
    ) -> ResolvedConfig:
        longest, most = max(map(len, self.rows), default=0), info.context_length
        if self.max_length is not None and not longest <= self.max_length <= most:
            self.violations.add("max_length", f"must be in [{longest}, {most}]")
        message = generation_pb2.GenerationConfig() if self.config is None else self.config
        return rows.without_branches(message, resolved, self.violations)

    def fit(self, checked: Checked) -> Plan[OpenSession]:
        resolved, vocabulary = checked.resolved, checked.vocabulary
        _check_context(self.rows, checked.info.context_length)
        max_length = self.max_length
        if max_length is None:
            resolved = _without_limit(resolved)
            max_length = max(map(len, self.rows))
        seed = rows.random_seed() if resolved.seed is None else resolved.seed
        selection = checked.selection or FULL_LOGITS
        command = OpenSession(
            self.new_id(),
            self._sequences(seed),
            resolved.config,
            revision=vocabulary.revision,
            max_length=max_length,
            selection=selection,
            cache_salt=checked.salt,
            sample=self.sample,
            append=self.append,
            pending=tuple(
                tuple(row[len(row) - origin.num_pending :])
                for row, origin in zip(self.rows, self.origins, strict=False)
            ),
        )
        lengths = [len(row) for row in self.rows]
        return Plan(
            command=command,
            sequences=command.sequences,
            resolved=resolved,
            seed=seed,
            vocabulary=vocabulary,
            kv_tokens=rows.session_kv_tokens(command, checked.info),
            response_bytes=distribution_bytes(selection, lengths, resolved.config, vocabulary.size),
        )

    def _sequences(self, seed: int) -> list[SequenceSpec]:
        """Returns the rows as the engine begins with them."""
        origins = self.origins or [
            RowOrigin(length, rows.sequence_seed(seed, index, 0))
            for index, length in enumerate(self.prompt_lengths)
        ]
        return [
            SequenceSpec(
                row[: len(row) - origin.num_pending],
                origin.seed,
                num_prompt_tokens=origin.num_prompt_tokens,
            )
            for row, origin in zip(self.rows, origins, strict=True)
        ]


def _without_limit(resolved: ResolvedConfig) -> ResolvedConfig:
    """Turns off what waits for the last token: reserved tokens do not limit the rows."""
    kept = tuple(s for s in resolved.config.processors if s.name != "forced_eos_token_ids")
    config = msgspec.structs.replace(resolved.config, forced_eos_token_ids=(), processors=kept)
    return replace(resolved, config=config)


def _check_context(rows: list[list[int]], context_length: int) -> None:
    for index, row in enumerate(rows):
        if len(row) > context_length:
            raise ContextLengthExceeded(
                row=index, prompt_tokens=len(row), new_tokens=0, context_tokens=context_length
            )
