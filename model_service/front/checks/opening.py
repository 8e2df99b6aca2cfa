"""What the openings of sessions ask, including those that `ComputeLogits` and `Score` make."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from lockstep.v1 import generation_pb2

from model_service.front.checks import rows
from model_service.front.checks.configuration import ResolvedConfig
from model_service.front.checks.plan import Asked, Checked, Plan, PlanLimits
from model_service.front.checks.response_size import distribution_bytes
from model_service.front.checks.selection import FULL_LOGITS, Use
from model_service.front.checks.sessions import new_session_id
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
        sample: whether the engine chooses the next token of each row.
        append: whether that token is appended.
    """

    use: Use = "given"
    unsaid: ScoreSelection | None = FULL_LOGITS
    max_length: int | None = None
    num_prompt_tokens: list[int] | None = None
    sample: bool = False
    append: bool = False

    @property
    def prompt_lengths(self) -> list[int]:
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
        starts: Sequence[int | None] = self.num_prompt_tokens or [None] * len(self.rows)
        selection = checked.selection or FULL_LOGITS
        command = OpenSession(
            new_session_id(),
            [
                SequenceSpec(row, rows.sequence_seed(seed, index, 0), num_prompt_tokens=start)
                for index, (row, start) in enumerate(zip(self.rows, starts, strict=True))
            ],
            resolved.config,
            revision=vocabulary.revision,
            max_length=max_length,
            selection=selection,
            cache_salt=checked.salt,
            sample=self.sample,
            append=self.append,
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
