"""Client of the Lockstep tokenizer and model services.

`Lockstep` blocks, `AsyncLockstep` is the same for asyncio. Everything that goes
wrong with a call is a `LockstepError`; `exceptions.py` draws the tree.
"""

from lockstep_client.aio.lockstep import AsyncLockstep
from lockstep_client.batch import Batch, Encoding, Padded
from lockstep_client.connection import USE_DEFAULT, Tls
from lockstep_client.exceptions import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    LockstepError,
    ProtocolError,
    ServiceError,
)
from lockstep_client.new_token import NewToken
from lockstep_client.results.generation import Completion, GeneratedSequence, Generation
from lockstep_client.selection import ScoreSelection
from lockstep_client.session_retention import SessionRetention
from lockstep_client.sync.lockstep import Lockstep
from lockstep_client.vocabulary_ref import VocabularyRef

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
