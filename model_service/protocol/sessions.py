"""Rows that are kept between calls."""

import msgspec

from model_service.protocol.calls import Failure, R, Request, Response
from model_service.protocol.generation import FinishReason, PositionScores, ScoreSelection
from model_service.protocol.generations import SequenceSpec, SequenceTokens
from model_service.protocol.parameters import GenerationConfig


class SessionRowAnswer(msgspec.Struct, frozen=True):
    """Outcome of a command that opens or changes a session, for one row."""

    position: int
    """Tokens in the row afterwards."""

    scores: list[PositionScores] = []
    sampled_token_id: int | None = None
    finish_reason: FinishReason | None = None
    """Why a generation would end with the sampled token."""

    failure: Failure | None = None


class SessionAnswer(Response, tag="session_answer"):
    """Outcome of a command that opens or changes a session."""

    rows: list[SessionRowAnswer]
    kv_bytes: int
    """Bytes of KV cache that the session has reserved now."""

    recomputed: bool = False
    """Whether tokens passed through the model again, because their KV cache had been dropped."""

    cached_tokens: int = 0
    """Tokens whose KV cache was copied from another sequence instead of computed."""

    queue_s: float = 0.0
    """From arrival to the first step of a row."""

    run_s: float = 0.0
    """From then to the answer of the last row."""

    @property
    def sampled_token_ids(self) -> list[int]:
        """The tokens that the engine chose."""
        sampled = (row.sampled_token_id for row in self.rows)
        return [token_id for token_id in sampled if token_id is not None]


class SessionDescription(Response, tag="session_description"):
    """A session's tokens."""

    rows: list[list[int]]
    """Tokens of each row. After `CloseSession`: what the rows held."""

    kv_bytes: int

    num_pending: tuple[int, ...] = ()
    """Last tokens of each row that have not passed through the model. Not after `CloseSession`."""


class SessionForked(Response, tag="session_forked"):
    """The new sessions exist."""

    positions: list[int]
    """Tokens in each row of every new session."""

    kv_bytes: int
    """Bytes of KV cache that each new session has reserved."""

    copied_bytes: int
    """Bytes of KV cache that were copied, for all new sessions."""


class NewSession(Request[R]):
    """What every command that opens a session says."""

    session_id: str
    sequences: list[SequenceSpec]
    config: GenerationConfig
    """How tokens are chosen, also by later calls."""

    revision: int
    """Vocabulary revision whose ids the rows see."""

    max_length: int
    """Most tokens of a row, which are reserved in the KV cache while the row has a slot."""

    @property
    def num_rows(self) -> int:
        """One for each sequence."""
        return len(self.sequences)


class OpenSession(NewSession[SessionAnswer], tag="open_session"):
    """Prefills rows and keeps them. Answered by `SessionAnswer`."""

    selection: ScoreSelection
    cache_salt: str | None = None
    """As in `Generate`."""

    sample: bool = False
    """Whether the engine chooses the next token of each row."""

    append: bool = False
    """Whether the chosen token is appended."""

    pending: tuple[tuple[int, ...], ...] = ()
    """Tokens that each row gets once its prompt has passed through the model: the next step
    begins with them. Empty for none."""


class GenerateSession(NewSession[SequenceTokens], tag="generate_session"):
    """Opens a session and runs its rows to their end. Answered as `Generate`.

    Nothing is left of a session of which a row fails, or whose call is cancelled
    before the last row has ended.
    """

    selection: ScoreSelection | None = None
    """What to return about each generated token."""

    prompt_selection: ScoreSelection | None = None
    """What to return about each prompt token."""

    cache_salt: str | None = None
    """As of `Generate`."""


class ContinueSession(Request[SequenceTokens], tag="continue_session"):
    """Runs the rows of a session to their end. Answered as `Generate`.

    Cancelled before the last row has ended, it is undone as a whole.
    """

    session_id: str
    config: GenerationConfig
    """How tokens are chosen by this call; the session keeps its own configuration."""

    max_new_tokens: list[int]
    """Most new tokens of each row."""

    selection: ScoreSelection | None = None
    """What to return about each generated token."""

    @property
    def num_rows(self) -> int:
        """All rows of the session."""
        return len(self.max_new_tokens)


class StepRow(msgspec.Struct, frozen=True, array_like=True):
    """What one row of a session does in a step."""

    token_ids: list[int]
    """Ids to append; empty leaves the row alone."""

    expected_position: int | None


class StepSession(Request[SessionAnswer], tag="step_session"):
    """Appends tokens to rows. Answered by `SessionAnswer`."""

    session_id: str
    rows: list[StepRow]
    selection: ScoreSelection
    sample: bool = False
    """Whether the engine chooses the next token of each stepped row."""

    append: bool = False
    """Whether the chosen token is appended (its KV entry is written with the next step)."""

    look_ahead: bool = False
    """Whether the rows are put back afterwards to where they were."""

    @property
    def num_rows(self) -> int:
        """All rows of the session."""
        return len(self.rows)


class TruncateSession(Request[SessionAnswer], tag="truncate_session"):
    """Forgets tokens. Answered by `SessionAnswer` without scores."""

    session_id: str
    lengths: list[int]
    """Tokens to keep, one per row."""


class ForkSession(Request[SessionForked], tag="fork_session"):
    """Copies rows to new sessions, all or none. Answered by `SessionForked`."""

    session_id: str
    fork_ids: list[str]
    """Names of the new sessions."""

    rows: list[int]
    """Index of the row that becomes each row of every new session."""


class SelectSessionRows(Request[SessionAnswer], tag="select_session_rows"):
    """Replaces a session's rows. Answered by `SessionAnswer` without scores."""

    session_id: str
    rows: list[int]
    """Index of the old row that becomes each new row."""


class RebindSession(Request[SessionAnswer], tag="rebind_session"):
    """Moves rows to a newer vocabulary revision. Answered by `SessionAnswer` without scores."""

    session_id: str
    revision: int
    """An existing revision, not older than the one of the rows."""


class DescribeSession(Request[SessionDescription], tag="describe_session"):
    """Asks for a session's tokens. Answered by `SessionDescription`."""

    session_id: str


class CloseSession(Request[SessionDescription], tag="close_session"):
    """Frees a session. Answered by `SessionDescription` without tokens."""

    session_id: str
