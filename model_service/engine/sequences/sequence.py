"""A row of tokens on its way through the model: the unit of scheduling.

A sequence is described by counts. Tokens `[0, num_cached)` have their keys and
values in the KV cache; the rest, at least one while there is work, are pending.
Decoding is the case of one pending token, prefill the case of several.

It stays while calls come and go. What its present call asks for is in its `call`,
and how its tokens are chosen in its `choosing`: both are replaced as a whole, so
that nothing is left of a former call.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from model_service.engine.sampling.choosing import Choosing
from model_service.engine.sampling.sampler import Choice
from model_service.engine.sequences import ends
from model_service.engine.sequences.call_progress import CallProgress
from model_service.engine.sequences.prompt_lookup import PromptLookup
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import Failure, Finish
from model_service.protocol.generation import FinishReason, PositionScores, ScoreSelection
from model_service.protocol.parameters import GenerationConfig


class Owner(Protocol):
    """What the calls of sequences belong to."""

    def answer(self, seq: "Sequence", choice: Choice, logits: Tensor) -> None:
        """Takes what was chosen for a sequence, and the `[W]` float32 row that it came from."""
        ...

    def fail(self, seq: "Sequence", failure: Failure) -> None:
        """Ends what a sequence that could not pass through the model was to do for its call."""
        ...

    def cancel(self, request_id: int) -> None:
        """Ends a call. One of another owner, or that has ended, is ignored."""
        ...


@dataclass(slots=True, eq=False)
class RowCall(CallProgress):
    """What the present call asks of one sequence, and what has come of it so far.

    Attributes:
        request_id: the call; 0 before the first one.
        owner: gets the outcome.
        selection: what is returned about the distribution of new tokens.
        prompt_selection: what is returned about the distribution of given tokens.
        priority: lower goes first.
        first_given: index of the first token that the call gave.
        limit: tokens of the sequence at which generation ends; None where nothing is generated.
    """

    request_id: int = 0
    owner: Owner | None = None
    selection: ScoreSelection | None = None
    prompt_selection: ScoreSelection | None = None
    priority: int = 0
    first_given: int = 0
    limit: int | None = None

    def take_given_scores(self) -> list[PositionScores]:
        """Returns what was found out about given tokens, which are not described again."""
        scores, self.given_scores, self.prompt_selection = self.given_scores, [], None
        return scores


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a sequence was before a call, so that it can be put back."""

    num_tokens: int
    num_passed: int


@dataclass(slots=True, eq=False)
class Guidance:
    """Two sequences that get the same tokens, drawn from the distributions of both.

    Attributes:
        guided: the one whose tokens are the caller's.
        guide: the one that continues the negative prompt with them, see `guides.py`.
        guided_logits: `[W]` float32 of the next token, while one waits for the other.
        guide_logits: as `guided_logits`, of the guide.
    """

    guided: "Sequence"
    guide: "Sequence"
    guided_logits: Tensor | None = None
    guide_logits: Tensor | None = None

    def arrive(self, seq: "Sequence", logits: Tensor | None) -> None:
        """Takes the logits, `[W]` float32, after one of the two sequences; None removes them."""
        if seq is self.guide:
            self.guide_logits = logits
        else:
            self.guided_logits = logits

    def append(self, token_id: int) -> None:
        """Makes the guide follow a token of the other."""
        self.guide.token_ids.append(token_id)
        self.guided_logits = self.guide_logits = None


@dataclass(slots=True, eq=False)
class Sequence:
    """One prompt and its growing continuation. Owned by the engine's only thread.

    Attributes:
        row: index of the sequence in its call.
        token_ids: prompt and continuation.
        max_length: tokens of KV cache reserved while it has a slot.
        choosing: how tokens are chosen.
        call: what the present call asks for, or the last one asked for.
        salt: whose keys and values it may reuse, and who may reuse its own: sequences of the
            same salt. None means none.
        principal: who it is computed for.
        in_session: whether it is a row of a session.
        companions: sequences that are admitted and removed together with this one.
        lookup: finds drafts in its own tokens, if its call asked for that.
        takes_drafts: whether an assistant, where there is one, may draft its tokens.
        guidance: what joins it to another sequence, if it is guided or a guide.
        lends: whether others may reuse what is in its slot now.
        num_cached: tokens whose keys and values are in the KV cache.
        num_lost: tokens that were cached when the slot was taken away.
        most_cached: most tokens of the slot that were written when tokens were last cut, or
            drafts verified.
        slot: row of the KV cache, or None.
    """

    row: int
    token_ids: list[int]
    max_length: int
    choosing: Choosing
    call: RowCall = field(default_factory=RowCall)
    salt: str | None = None
    principal: str = ""
    in_session: bool = False
    companions: "tuple[Sequence, ...]" = ()
    lookup: PromptLookup | None = None
    takes_drafts: bool = False
    guidance: Guidance | None = None
    lends: bool = True
    num_cached: int = 0
    num_lost: int = 0
    most_cached: int = 0
    slot: int | None = None

    # --- Counts ----------------------------------------------------------------------------------

    @property
    def num_pending(self) -> int:
        """Tokens that have yet to pass through the model."""
        return len(self.token_ids) - self.num_cached

    @property
    def num_passed(self) -> int:
        """Tokens that have passed through the model, even if their keys and values were lost."""
        return max(self.num_cached, self.num_lost)

    @property
    def num_written(self) -> int:
        """Tokens of the slot that were ever written, those since cut off included."""
        return max(self.most_cached, self.num_cached)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that were given, not generated by `Generate`."""
        return len(self.choosing.prompt)

    @property
    def num_new_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def first_described(self) -> int:
        """Index of the first token after which a distribution is wanted."""
        last = len(self.token_ids) - 1
        selection = self.call.prompt_selection
        if selection is None:
            return last
        skipped = 0
        if selection.positions == "list" and not selection.scores:  # processors see every token
            skipped = min(selection.position_list, default=last)
        return min(self.call.first_given + skipped, last)

    # --- Tokens ----------------------------------------------------------------------------------

    def append(self, token_id: int) -> FinishReason | None:
        """Appends a chosen token and says whether it ends the sequence.

        An end-of-sequence id that is also the last one allowed ends the sequence
        as an end-of-sequence id.
        """
        self.call.note_token()
        reason = self.finish_reason(token_id)
        self.token_ids.append(token_id)
        if self.guidance is not None:
            self.guidance.append(token_id)
        return reason

    def follow(self, other: "Sequence") -> None:
        """Takes over the tokens of a row with the same prompt. What it had cached is forgotten."""
        self.most_cached = self.num_written
        self.token_ids = list(other.token_ids)
        self.num_cached = 0

    def truncate(self, length: int, num_passed: int | None = None) -> None:
        """Forgets the tokens from `length` on.

        What is in the slot beyond is left there, never read, and overwritten by
        the tokens to come; freeing the slot clears it.

        Args:
            length: tokens to keep.
            num_passed: tokens that count as passed through the model afterwards, at most
                `length`; None means as many of those kept as were.
        """
        self.most_cached = self.num_written
        del self.token_ids[length:]
        most = length if num_passed is None else num_passed
        self.num_cached = min(self.num_cached, most)
        self.num_lost = min(self.num_lost, most)
        if length < self.num_prompt_tokens:
            self.choosing = replace(self.choosing, prompt=self.choosing.prompt[:length])

    def mark(self) -> Mark:
        """Returns where it is."""
        return Mark(len(self.token_ids), self.num_passed)

    def put_back(self, mark: Mark) -> None:
        """Forgets what a call did.

        A token that was pending before the call is pending again, even if its keys
        and values were written: the next step returns its distribution as if
        nothing had happened.
        """
        self.truncate(mark.num_tokens, mark.num_passed)

    def copy(self, row: int) -> "Sequence":
        """Returns an idle session row with the same tokens, without a slot."""
        draws = self.choosing.torch_draws
        return Sequence(
            row=row,
            token_ids=list(self.token_ids),
            max_length=self.max_length,
            choosing=replace(self.choosing, torch_draws=draws and draws.copy()),
            salt=self.salt,
            principal=self.principal,
            in_session=True,
            lends=self.lends,
            num_lost=self.num_passed,
        )

    def give(self, token_ids: list[int]) -> None:
        """Appends tokens that nobody chose here."""
        self.token_ids += token_ids

    # --- How tokens are chosen -------------------------------------------------------------------

    def configure(self, config: GenerationConfig, length_limit: int) -> None:
        """Changes how tokens are chosen from now on, and how many there may be."""
        self.choosing = replace(self.choosing, config=config, length_limit=length_limit)

    def rebind(self, revision: RevisionRows) -> None:
        """Moves to a newer revision. Keys and values stay: ids keep their meaning and their rows.

        A draw is made among all ids of the revision, so none of the older one is a draw of this.
        """
        self.choosing = replace(self.choosing, revision=revision, torch_draws=None)

    def attach_guide(self, token_ids: list[int]) -> None:
        """Gives the sequence a guide that continues other tokens with the ones it gets."""
        guide = Sequence(
            row=self.row,
            token_ids=token_ids,
            max_length=len(token_ids) + self.max_length - len(self.token_ids),
            choosing=self.choosing,
            call=RowCall(self.call.request_id),
            salt=self.salt,
            principal=self.principal,
        )
        self.guidance = guide.guidance = Guidance(self, guide)
        self.companions = (guide,)

    def add_companions(self, count: int) -> None:
        """Adds sequences without tokens that may take over its own, see `follow`."""
        call = self.call
        self.companions = tuple(
            Sequence(
                row=self.row,
                token_ids=[],
                max_length=self.max_length,
                choosing=replace(self.choosing),
                call=RowCall(call.request_id, call.owner, call.selection, limit=call.limit),
                salt=self.salt,
                principal=self.principal,
            )
            for _ in range(count)
        )

    # --- Keys and values -------------------------------------------------------------------------

    def advance(self, num_tokens: int, num_drafts: int = 0) -> None:
        """Counts pending tokens as cached.

        Drafts were written behind them. They are overwritten by the tokens to
        come, unless they turn out to be those.
        """
        self.num_cached += num_tokens
        if num_drafts:
            self.note_written(num_drafts)

    def note_written(self, num_tokens: int) -> None:
        """Counts tokens after those cached as written, by a step that failed midway."""
        self.most_cached = max(self.num_written, self.num_cached + num_tokens)

    def take_over(self, length: int) -> None:
        """Counts its first tokens as cached: they were copied from another sequence's slot."""
        self.num_cached = length
        if not self.call.first_token:
            self.call.num_reused = min(length, self.num_prompt_tokens)

    def pass_again(self) -> None:
        """Makes the last token pending, where it has passed through the model."""
        num_tokens = len(self.token_ids)
        self.truncate(num_tokens, num_tokens - 1)

    def have_passed(self, num_tokens: int, *, still_written: bool) -> None:
        """Counts its first tokens as passed, those included that were to pass again.

        Args:
            num_tokens: how many.
            still_written: whether their keys and values are in the slot.
        """
        if still_written:
            self.num_cached = num_tokens
        else:
            self.num_lost = num_tokens

    def withdraw(self) -> None:
        """Lets nobody start from its keys and values any more."""
        self.salt = None

    def lose_slot(self) -> None:
        """Forgets keys and values, and keeps all else: they can be computed again."""
        self.num_lost = self.num_passed
        self.num_cached = self.most_cached = 0
        self.slot = None
        self.lends = True
        if self.guidance is not None:
            self.guidance.arrive(self, None)
        self.call.forget_given_scores()

    # --- Ends ------------------------------------------------------------------------------------

    def finish_reason(self, token_id: int) -> FinishReason | None:
        """Says why the sequence would end with `token_id` as its next token, or None."""
        reason = ends.finish_reason(self.choosing, self.token_ids, token_id)
        if reason is not None:
            return reason
        limit, num_tokens = self.call.limit, len(self.token_ids) + 1
        if limit is not None and num_tokens >= limit:
            return "max_new_tokens"
        if num_tokens >= self.max_length:
            return "context_length"
        max_time = self.choosing.config.max_time
        if limit is None or max_time is None:
            return None
        return "time_limit" if time.monotonic() - self.call.arrival >= max_time else None

    def finish(self, reason: FinishReason, failure: Failure | None = None) -> Finish:
        """Builds the record of the end, with the times since arrival in seconds."""
        stop_string = None
        if reason == "stop_string":
            *token_ids, last = self.token_ids
            stop_string = ends.completed(self.choosing, token_ids, last)
        return self.call.finish(reason, failure, stop_string or "")
