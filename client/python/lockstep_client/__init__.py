"""Client of the Lockstep tokenizer and model services.

`Lockstep` blocks, `AsyncLockstep` is the same for asyncio. Everything that goes
wrong with a call is a `LockstepError`; `exceptions.py` draws the tree.
"""

from lockstep_client._async.lockstep import AsyncLockstep
from lockstep_client._results.generation import Completion, GeneratedSequence, Generation
from lockstep_client._sync.lockstep import Lockstep
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
    LockstepError,
    ProtocolError,
    ServiceError,
)

__all__ = [
    "USE_DEFAULT",
    "AsyncLockstep",
    "Batch",
    "Cancelled",
    "Completion",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Encoding",
    "GeneratedSequence",
    "Generation",
    "Lockstep",
    "LockstepError",
    "NewToken",
    "Padded",
    "ProtocolError",
    "ScoreSelection",
    "ServiceError",
    "SessionRetention",
    "Tls",
    "VocabularyRef",
]
