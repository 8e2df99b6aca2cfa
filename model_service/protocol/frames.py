"""The frames that cross the socket, and which messages each may hold."""

import msgspec

from model_service.protocol.calls import Rejected, Request, Response
from model_service.protocol.generations import Generate, SequenceTokens
from model_service.protocol.growth import GrowVocabulary, SpellTokens, VocabularyGrown
from model_service.protocol.sessions import (
    CloseSession,
    ContinueSession,
    DescribeSession,
    ForkSession,
    GenerateSession,
    OpenSession,
    RebindSession,
    SelectSessionRows,
    SessionAnswer,
    SessionDescription,
    SessionForked,
    StepSession,
    TruncateSession,
)
from model_service.protocol.state import (
    GraphStatus,
    Load,
    LoadFailed,
    LoadProgress,
    Ready,
    StepStats,
)


class Cancel(msgspec.Struct, tag="cancel"):
    """Ends a call at the next step boundary. Unknown ids are ignored.

    A step of a session is undone: its rows are as they were before it. What was
    already found out about rows is still sent, so that the ring can be released.
    """

    request_id: int


class PrefixCacheFlushed(Response, tag="prefix_cache_flushed"):
    """Nothing is kept for reuse any more."""

    token_count: int
    """Tokens dropped."""


class FlushPrefixCache(Request[PrefixCacheFlushed], tag="flush_prefix_cache"):
    """Drops the KV cache kept for reuse. Answered by `PrefixCacheFlushed`.

    No later prompt reuses what was computed before, not even from sequences that
    are still there.
    """


class Ping(msgspec.Struct, tag="ping"):
    """Asks for a sign of life: a report, even if it says nothing new."""


class Shutdown(msgspec.Struct, tag="shutdown"):
    """Ends the engine process."""


Command = (
    Generate
    | Cancel
    | OpenSession
    | GenerateSession
    | StepSession
    | ContinueSession
    | TruncateSession
    | ForkSession
    | SelectSessionRows
    | RebindSession
    | DescribeSession
    | CloseSession
    | SpellTokens
    | GrowVocabulary
    | FlushPrefixCache
    | Ping
    | Shutdown
)


class Commands(msgspec.Struct):
    """One frame from the front."""

    commands: list[Command]
    consumed: int = 0
    """Bytes of the shared ring that the front has copied out, ever. See `channel.py`."""


Event = (
    SequenceTokens
    | Rejected
    | SessionAnswer
    | SessionDescription
    | SessionForked
    | VocabularyGrown
    | PrefixCacheFlushed
)


class Report(msgspec.Struct, tag="report"):
    """Every event of one step, or since the last one. Also sent when only the load has changed."""

    events: list[Event]
    load: Load
    """After the step."""

    stats: StepStats | None = None
    """Unset when no step was run."""


Message = Ready | LoadProgress | LoadFailed | GraphStatus | Report
