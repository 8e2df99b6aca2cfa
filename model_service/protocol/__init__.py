"""What crosses the socket between the front and the engine process.

Own types in msgpack: no protobuf, no pickle, no tensors. The front sends
commands; the engine answers with one `Report` per step that holds every event
of that step. A `request_id` is the front's counter and names one call.

Neither side blocks on the other: commands wait in the engine's inbox until the
next step boundary, and events wait in the socket.
"""

from model_service.protocol.calls import Failure, Rejected, Request, Response
from model_service.protocol.engine_settings import EngineSettings
from model_service.protocol.frames import (
    Cancel,
    Command,
    Commands,
    Event,
    FlushPrefixCache,
    Message,
    Ping,
    PrefixCacheFlushed,
    Report,
    Shutdown,
)
from model_service.protocol.generations import Finish, Generate, SequenceSpec, SequenceTokens
from model_service.protocol.growth import GrowVocabulary, NewRow, SpellTokens, VocabularyGrown
from model_service.protocol.sessions import (
    CloseSession,
    ContinueSession,
    DescribeSession,
    ForkSession,
    GenerateSession,
    NewSession,
    OpenSession,
    RebindSession,
    SelectSessionRows,
    SessionAnswer,
    SessionDescription,
    SessionForked,
    SessionRowAnswer,
    StepRow,
    StepSession,
    TruncateSession,
)
from model_service.protocol.state import (
    EngineInfo,
    GraphState,
    GraphStatus,
    Load,
    LoadFailed,
    LoadProgress,
    Ready,
    StepStats,
)

__all__ = [
    "Cancel",
    "CloseSession",
    "Command",
    "Commands",
    "ContinueSession",
    "DescribeSession",
    "EngineInfo",
    "EngineSettings",
    "Event",
    "Failure",
    "Finish",
    "FlushPrefixCache",
    "ForkSession",
    "Generate",
    "GenerateSession",
    "GraphState",
    "GraphStatus",
    "GrowVocabulary",
    "Load",
    "LoadFailed",
    "LoadProgress",
    "Message",
    "NewRow",
    "NewSession",
    "OpenSession",
    "Ping",
    "PrefixCacheFlushed",
    "Ready",
    "RebindSession",
    "Rejected",
    "Report",
    "Request",
    "Response",
    "SelectSessionRows",
    "SequenceSpec",
    "SequenceTokens",
    "SessionAnswer",
    "SessionDescription",
    "SessionForked",
    "SessionRowAnswer",
    "Shutdown",
    "SpellTokens",
    "StepRow",
    "StepSession",
    "StepStats",
    "TruncateSession",
    "VocabularyGrown",
]
