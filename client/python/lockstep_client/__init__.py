"""Client of the Lockstep tokenizer and model services.

`Lockstep` blocks, `AsyncLockstep` is the same for asyncio. Everything that goes
wrong with a call is a `LockstepError`; `exceptions.py` draws the tree. Keywords
are in classes like `GenerateOptions`, which `help` describes one by one.
"""

from importlib.metadata import version

import lockstep_client._transport.grpc_log as _grpc_log  # noqa: F401 before gRPC is loaded
from lockstep_client._async.lockstep import AsyncLockstep
from lockstep_client._async.model import AsyncModel
from lockstep_client._async.session import AsyncSession
from lockstep_client._async.step_stream import AsyncStepStream
from lockstep_client._async.streams import AsyncStream
from lockstep_client._async.tokenizer import AsyncDecoder, AsyncTokenizer
from lockstep_client._async.vocabulary import AsyncVocabulary
from lockstep_client._calls.session_state import StepResult
from lockstep_client._requests.options import (
    AddOptions,
    ChangeOptions,
    ChatOptions,
    CompletionOptions,
    CuttingOptions,
    DecodeOptions,
    DistributionOptions,
    EncodeOptions,
    GenerateOptions,
    GenerationOptions,
    ManyOptions,
    PaddingOptions,
    PromptOptions,
    ScoreOptions,
    SessionOptions,
    StepOptions,
)
from lockstep_client._results.determinism import Determinism
from lockstep_client._results.distribution import Distribution
from lockstep_client._results.generation import (
    Completion,
    GeneratedSequence,
    Generation,
    Timing,
    TokenDelta,
    Usage,
)
from lockstep_client._results.model_info import (
    Capabilities,
    Load,
    LogitsProcessor,
    ModelInfo,
    Plan,
    VocabularyFollowing,
)
from lockstep_client._results.scores import (
    NextTokenScores,
    PositionScores,
    ScoredSequence,
    TokenScore,
)
from lockstep_client._results.tokenizer import (
    ConvertedTokens,
    DecodedText,
    TokenizerInfo,
    VocabularyEntry,
)
from lockstep_client._results.vocabulary import (
    AddedToken,
    AddedTokens,
    ImportedRevisions,
    Revision,
    TextEffect,
    TextTokens,
    Verification,
)
from lockstep_client._sync.lockstep import Lockstep
from lockstep_client._sync.model import Model
from lockstep_client._sync.session import Session
from lockstep_client._sync.step_stream import StepStream
from lockstep_client._sync.streams import Stream
from lockstep_client._sync.tokenizer import Decoder, Tokenizer
from lockstep_client._sync.vocabulary import Vocabulary
from lockstep_client._transport.endpoint import USE_DEFAULT, Tls
from lockstep_client._values.batch import Batch, Encoding, Padded
from lockstep_client._values.new_token import NewToken
from lockstep_client._values.selection import ScoreSelection
from lockstep_client._values.session_retention import SessionRetention
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArgument,
    LockstepError,
    ProtocolError,
    ServiceError,
)

__version__ = version("lockstep-client")

__all__ = [
    "USE_DEFAULT",
    "AddOptions",
    "AddedToken",
    "AddedTokens",
    "AsyncDecoder",
    "AsyncLockstep",
    "AsyncModel",
    "AsyncSession",
    "AsyncStepStream",
    "AsyncStream",
    "AsyncTokenizer",
    "AsyncVocabulary",
    "Batch",
    "Cancelled",
    "Capabilities",
    "ChangeOptions",
    "ChatOptions",
    "Completion",
    "CompletionOptions",
    "ConnectionFailed",
    "ConvertedTokens",
    "CuttingOptions",
    "DeadlineExceeded",
    "DecodeOptions",
    "DecodedText",
    "Decoder",
    "Determinism",
    "Distribution",
    "DistributionOptions",
    "EncodeOptions",
    "Encoding",
    "GenerateOptions",
    "GeneratedSequence",
    "Generation",
    "GenerationOptions",
    "ImportedRevisions",
    "InvalidArgument",
    "Load",
    "Lockstep",
    "LockstepError",
    "LogitsProcessor",
    "ManyOptions",
    "Model",
    "ModelInfo",
    "NewToken",
    "NextTokenScores",
    "Padded",
    "PaddingOptions",
    "Plan",
    "PositionScores",
    "PromptOptions",
    "ProtocolError",
    "Revision",
    "ScoreOptions",
    "ScoreSelection",
    "ScoredSequence",
    "ServiceError",
    "Session",
    "SessionOptions",
    "SessionRetention",
    "StepOptions",
    "StepResult",
    "StepStream",
    "Stream",
    "TextEffect",
    "TextTokens",
    "Timing",
    "Tls",
    "TokenDelta",
    "TokenScore",
    "Tokenizer",
    "TokenizerInfo",
    "Usage",
    "Verification",
    "Vocabulary",
    "VocabularyEntry",
    "VocabularyFollowing",
    "VocabularyRef",
]
