"""What a `GenerateRequest` asks: new sequences, kept or not, or the rows of a session."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import msgspec
from lockstep.v1 import generation_pb2, model_service_pb2

from model_service.front.checks import rows
from model_service.front.checks.configuration import ResolvedConfig
from model_service.front.checks.plan import Asked, Checked, Plan, PlanLimits
from model_service.front.checks.prompts import read_padding, read_prompts
from model_service.front.checks.response_size import generation_bytes
from model_service.front.checks.rows import (
    check_max_length,
    fit_context,
    new_tokens,
)
from model_service.front.checks.sessions import SessionTerms
from model_service.protocol import (
    ContinueSession,
    EngineInfo,
    Generate,
    GenerateSession,
    OpenSession,
    SequenceSpec,
)
from model_service.protocol.parameters import IMPLYING_OFF
from vocabulary import Reference
from wire.prompts import Bounds
from wire.violations import Violations

C = TypeVar("C", covariant=True)


class _Prompted(Asked[C]):
    """Sequences of prompts, which run to their ends."""

    def __init__(self, request: model_service_pb2.GenerateRequest, bounds: Bounds) -> None:
        """Reads a request.

        Args:
            request: the request.
            bounds: how many rows there may be, and how long.

        Raises:
            ContextLengthExceeded: a prompt is longer than the context.
        """
        violations = Violations()
        super().__init__(
            violations=violations,
            rows=read_prompts(request.prompt, violations, bounds),
            config=request.generation_config,
            max_return_sequences=bounds.max_rows,
            scores=request.scores,
            use="new",
            prompt_scores=request.prompt_scores,
            priority=request.priority,
            cache_salt=request.cache_salt,
            reuses=request.use_prefix_cache or not request.HasField("use_prefix_cache"),
        )
        self.request = request

    def settle(
        self, resolved: ResolvedConfig, info: EngineInfo, limits: PlanLimits
    ) -> ResolvedConfig:
        request, violations = self.request, self.violations
        self.padding = read_padding(request.prompt, self.rows, resolved, violations)
        check_max_length(resolved, self.lengths, violations)
        num_rows = len(self.rows) * rows.rows_per_prompt(resolved)
        if num_rows > limits.max_sequences_per_call:
            most = limits.max_sequences_per_call
            violations.add("prompt", f"asks for {num_rows} sequences; one call may ask for {most}")
        if request.seeds:
            self._check_seeds(request.seeds, resolved)
        rows.check_generation(resolved, info, violations, prompt_scores=request.prompt_scores)
        return resolved

    def _check_seeds(self, given: Sequence[int], resolved: ResolvedConfig) -> None:
        if len(given) != len(self.rows):
            self.violations.add("seeds", f"must have one seed per prompt, {len(self.rows)}")
        if min(given) < 0:
            self.violations.add("seeds", "must be in [0, 2^63)")
        if resolved.seed is not None and not resolved.lenient:
            self.violations.add(
                "generation_config.seed", "has no effect when seeds is set; set only one of the two"
            )

    def fit(self, checked: Checked) -> Plan[C]:
        lengths, context_length = self.lengths, checked.info.context_length
        resolved, num_new = fit_context(checked.resolved, lengths, context_length)
        seed = rows.random_seed() if resolved.seed is None else resolved.seed
        sequences = self._sequences(num_new, resolved, seed)
        checked = replace(checked, resolved=resolved)
        command, kv_tokens = self._command(checked, sequences, num_new)
        return Plan(
            command=command,
            sequences=sequences,
            resolved=resolved,
            seed=None if self.request.seeds else seed,
            vocabulary=checked.vocabulary,
            kv_tokens=kv_tokens,
            response_bytes=generation_bytes(
                lengths.tokens,
                lengths.within(num_new, context_length),
                resolved,
                checked.selection,
                checked.prompt_selection,
                checked.vocabulary.size,
            ),
        )

    def _sequences(
        self, num_new: list[int], resolved: ResolvedConfig, seed: int
    ) -> list[SequenceSpec]:
        """Gives every row the seed that reproduces it alone, see `seeds.sequence_seed`."""
        given, padding = self.request.seeds, self.lengths.padding
        sequences = []
        for index, prompt in enumerate(self.rows):
            base, prompt_index = (given[index], 0) if given else (seed, index)
            for sequence_index in range(resolved.num_return_sequences):
                # The sequences of one search come from the same draws.
                index_of_draws = 0 if resolved.config.num_beams > 1 else sequence_index
                row_seed = rows.sequence_seed(base, prompt_index, index_of_draws)
                spec = SequenceSpec(prompt, row_seed, num_new[index], padding[index])
                sequences.append(spec)
        return sequences

    @abstractmethod
    def _command(
        self, checked: Checked, sequences: list[SequenceSpec], num_new: list[int]
    ) -> tuple[C, int]:
        """Returns the command, and the tokens of KV cache that it reserves.

        Raises:
            KVCacheExceeded: there will never be as many.
        """


class AskedSequences(_Prompted[Generate]):
    """Sequences of which nothing is left."""

    def _command(
        self, checked: Checked, sequences: list[SequenceSpec], num_new: list[int]
    ) -> tuple[Generate, int]:
        resolved = checked.resolved
        kv_tokens = rows.kv_tokens(self.prompt_lengths, num_new, resolved, checked.info)
        command = Generate(
            sequences,
            resolved.config,
            revision=checked.vocabulary.revision,
            selection=checked.selection,
            prompt_selection=checked.prompt_selection,
            priority=self.priority,
            sequences_per_prompt=resolved.num_return_sequences,
            cache_salt=checked.salt,
        )
        return command, kv_tokens


class AskedSession(_Prompted[GenerateSession]):
    """Sequences that are rows of a session from the start, and that it keeps.

    Attributes:
        ttl_s: idle time of the session.
    """

    def __init__(
        self, request: model_service_pb2.GenerateRequest, bounds: Bounds, terms: SessionTerms
    ) -> None:
        """Reads a request that has `keep_session`. Parameters and errors as of `AskedSequences`."""
        super().__init__(request, bounds)
        keep = request.keep_session
        self.ttl_s = terms.ttl_s
        if keep.HasField("ttl"):
            self.ttl_s = terms.read_ttl(keep.ttl, self.violations, "keep_session.ttl")
        self._terms = terms
        self._max_length = 0

    def settle(
        self, resolved: ResolvedConfig, info: EngineInfo, limits: PlanLimits
    ) -> ResolvedConfig:
        resolved = super().settle(resolved, info, limits)
        self._max_length = self._read_max_length(resolved, info.context_length)
        if rows.takes_several_rows(resolved):
            self.violations.add(
                "keep_session",
                "keeps one row per sequence; leave it out where a sequence takes several",
            )
        if any(self.padding):
            self.violations.add(
                "keep_session", "keeps rows without padding; leave out lengths_include_padding"
            )
        return resolved

    def _command(
        self, checked: Checked, sequences: list[SequenceSpec], num_new: list[int]
    ) -> tuple[GenerateSession, int]:
        command = GenerateSession(
            self._terms.new_id(),
            sequences,
            checked.resolved.config,
            revision=checked.vocabulary.revision,
            max_length=self._max_length,
            selection=checked.selection,
            prompt_selection=checked.prompt_selection,
            cache_salt=checked.salt,
        )
        return command, rows.session_kv_tokens(command, checked.info)

    def _read_max_length(self, resolved: ResolvedConfig, context_length: int) -> int:
        """Returns the tokens that a row may have."""
        keep = self.request.keep_session
        lengths = self.lengths
        num_new = lengths.within(new_tokens(resolved.config, lengths), context_length)
        longest, largest = max(lengths.tokens, default=0), max(num_new, default=0)
        needed = min(longest + largest, context_length)
        if not keep.HasField("max_length"):
            return self._terms.room(needed, context_length)
        if not needed <= keep.max_length <= context_length:
            self.violations.add(
                "keep_session.max_length", f"must be in [{needed}, {context_length}]"
            )
        return keep.max_length


class AskedContinuation(Asked[ContinueSession]):
    """A session whose rows go on by themselves."""

    def __init__(
        self,
        request: model_service_pb2.GenerateRequest,
        session: Plan[OpenSession | GenerateSession],
        rows: list[list[int]],
        vocabulary: Reference,
    ) -> None:
        """Reads a request that has `session_id`.

        Args:
            request: the request.
            session: the call that opened the session.
            rows: the tokens of its rows so far.
            vocabulary: the revision that the request names, or the session's.
        """
        super().__init__(
            rows=rows,
            config=request.generation_config,
            defaults=session.resolved.config,
            scores=request.scores,
            use="new",
            priority=request.priority,
            cache_salt=request.cache_salt,
        )
        self._request = request
        self._session = session
        self._vocabulary = vocabulary

    @property
    def prompt_lengths(self) -> list[int]:
        return [spec.prompt_length for spec in self._session.sequences]

    def settle(
        self, resolved: ResolvedConfig, info: EngineInfo, limits: PlanLimits
    ) -> ResolvedConfig:
        message = self._request.generation_config
        self._check_what_the_session_brings(message)
        resolved = rows.without_branches(message, resolved, self.violations)
        for index, row in enumerate(self.rows):
            if not row:
                self.violations.add("session_id", f"row {index} has no tokens to go on from")
        check_max_length(resolved, self.lengths, self.violations)
        return resolved

    def _check_what_the_session_brings(self, message: generation_pb2.GenerationConfig) -> None:
        """Notes fields that contradict the session."""
        request, violations = self._request, self.violations
        for name in ("prompt", "prompt_scores", "keep_session"):
            if request.HasField(name):
                violations.add(name, "must not be set together with session_id")
        if request.seeds or message.HasField("seed"):
            name = "seeds" if request.seeds else "generation_config.seed"
            violations.add(name, "must not be set together with session_id: its rows have seeds")
        revision = self._session.vocabulary.revision
        if self._vocabulary.revision != revision:
            violations.add("vocabulary.revision", f"must be the session's revision, {revision}")
        if message.lenient or message.processors or not self._session.resolved.config.processors:
            return
        for descriptor, value in message.ListFields():
            if value != IMPLYING_OFF.get(descriptor.name, value):
                violations.add(
                    f"generation_config.{descriptor.name}",
                    "implies a processor, which the session's `processors` replace; set lenient "
                    "to have it ignored",
                )

    def fit(self, checked: Checked) -> Plan[ContinueSession]:
        session, lengths = self._session, self.lengths
        max_length = session.command.max_length
        resolved, num_new = fit_context(checked.resolved, lengths, max_length, of_session=True)
        if not self._request.generation_config.HasField("min_new_tokens"):
            # It counts from the session's prompt, so the length of this call does not bound it.
            minimum = session.resolved.config.min_new_tokens
            config = msgspec.structs.replace(resolved.config, min_new_tokens=minimum)
            resolved = replace(resolved, config=config)
        return Plan(
            command=ContinueSession(
                session.command.session_id, resolved.config, num_new, selection=checked.selection
            ),
            sequences=[
                SequenceSpec(row, spec.seed)
                for row, spec in zip(self.rows, session.sequences, strict=True)
            ],
            resolved=resolved,
            seed=None,
            vocabulary=checked.vocabulary,
            kv_tokens=max_length * len(self.rows),
            response_bytes=generation_bytes(
                lengths.tokens,
                lengths.within(num_new, max_length),
                resolved,
                checked.selection,
                None,
                checked.vocabulary.size,
            ),
        )
