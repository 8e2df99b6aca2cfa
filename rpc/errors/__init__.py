"""Failures that a caller can act on. Pure Python: nothing here knows about gRPC.

    ServiceError
    ├── InvalidField              the request is wrong; never retry it as it is
    ├── MalformedMessage          the bytes are not a message of the method
    ├── MessageTooLarge           the request message is larger than is read
    ├── TokenIdOutOfRange         an id is not in the request's vocabulary
    ├── ContextLengthExceeded     prompt and new tokens do not fit the context
    ├── NotImplemented_           the method or feature is not offered
    ├── VocabularyMismatch        the ids belong to another vocabulary
    ├── VocabularyBehind          this replica does not have that revision yet; retry
    ├── RevisionConflict          another call changed the vocabulary first
    ├── IdempotencyKeyReused      the key was used with another request
    ├── SessionNotFound           the KV cache is gone; open a session again
    ├── SessionOnOtherReplica     another replica has the session; call that one
    ├── SessionBusy               another call is using the session; retry
    ├── PositionConflict          the session is not where the step expected it
    ├── ResponseTooLarge          the response is larger than is sent
    ├── Unauthenticated           it is not known who calls
    ├── PermissionDenied          the caller lacks a role
    ├── QuotaExceeded             the caller has used what it may; retry
    ├── Overloaded                too much in progress; retry
    ├── KVCacheExceeded           more KV cache than the server has in total
    ├── MemoryExhausted           memory was not sufficient for a sequence; retry
    ├── Loading                   not yet ready; retry
    ├── Draining                  shutting down; retry elsewhere
    │   └── Paused                paused by an operator; retry
    ├── EngineLost                the model's process ended; retry
    ├── NonFiniteLogits           the model produced NaN or infinity for a row
    ├── NonFiniteScores           the processors turned finite logits into NaN or infinity
    ├── NoTokenLeft               the processors excluded every token
    ├── NoChatTemplate            the tokenizer has no chat template
    ├── ChatTemplateFailed        the template refused the messages
    ├── StoreUnavailable          the vocabulary store failed; retry
    ├── TokenExists               the token exists with other attributes
    ├── SlowConsumer              the caller did not read its stream
    └── InternalError             a bug; its text stays in the log

Anything else that escapes a servicer is a bug and reaches the caller as
`InternalError`, without its message. `status.py` holds the one table that maps
this tree to gRPC codes and `ErrorReason`.
"""

from rpc.errors.identity import (
    CredentialsFault as CredentialsFault,
)
from rpc.errors.identity import (
    PermissionDenied as PermissionDenied,
)
from rpc.errors.identity import (
    QuotaExceeded as QuotaExceeded,
)
from rpc.errors.identity import (
    Unauthenticated as Unauthenticated,
)
from rpc.errors.model import (
    EngineLost as EngineLost,
)
from rpc.errors.model import (
    KVCacheExceeded as KVCacheExceeded,
)
from rpc.errors.model import (
    MemoryExhausted as MemoryExhausted,
)
from rpc.errors.model import (
    NonFiniteLogits as NonFiniteLogits,
)
from rpc.errors.model import (
    NonFiniteScores as NonFiniteScores,
)
from rpc.errors.model import (
    NoTokenLeft as NoTokenLeft,
)
from rpc.errors.model import (
    PositionConflict as PositionConflict,
)
from rpc.errors.model import (
    SessionBusy as SessionBusy,
)
from rpc.errors.model import (
    SessionNotFound as SessionNotFound,
)
from rpc.errors.model import (
    SessionOnOtherReplica as SessionOnOtherReplica,
)
from rpc.errors.requests import (
    ContextLengthExceeded as ContextLengthExceeded,
)
from rpc.errors.requests import (
    InvalidField as InvalidField,
)
from rpc.errors.requests import (
    MalformedMessage as MalformedMessage,
)
from rpc.errors.requests import (
    MessageTooLarge as MessageTooLarge,
)
from rpc.errors.requests import (
    NotImplemented_ as NotImplemented_,
)
from rpc.errors.requests import (
    ResponseTooLarge as ResponseTooLarge,
)
from rpc.errors.requests import (
    SlowConsumer as SlowConsumer,
)
from rpc.errors.requests import (
    TokenIdOutOfRange as TokenIdOutOfRange,
)
from rpc.errors.server import (
    Draining as Draining,
)
from rpc.errors.server import (
    InternalError as InternalError,
)
from rpc.errors.server import (
    Loading as Loading,
)
from rpc.errors.server import (
    Overloaded as Overloaded,
)
from rpc.errors.server import (
    Paused as Paused,
)
from rpc.errors.service_error import (
    MAX_VIOLATIONS as MAX_VIOLATIONS,
)
from rpc.errors.service_error import (
    FieldViolation as FieldViolation,
)
from rpc.errors.service_error import (
    ServiceError as ServiceError,
)
from rpc.errors.vocabulary import (
    ChatTemplateFailed as ChatTemplateFailed,
)
from rpc.errors.vocabulary import (
    IdempotencyKeyReused as IdempotencyKeyReused,
)
from rpc.errors.vocabulary import (
    MismatchCause as MismatchCause,
)
from rpc.errors.vocabulary import (
    NoChatTemplate as NoChatTemplate,
)
from rpc.errors.vocabulary import (
    RevisionConflict as RevisionConflict,
)
from rpc.errors.vocabulary import (
    StoreCause as StoreCause,
)
from rpc.errors.vocabulary import (
    StoreUnavailable as StoreUnavailable,
)
from rpc.errors.vocabulary import (
    TokenExists as TokenExists,
)
from rpc.errors.vocabulary import (
    VocabularyBehind as VocabularyBehind,
)
from rpc.errors.vocabulary import (
    VocabularyMismatch as VocabularyMismatch,
)
from rpc.errors.vocabulary import (
    VocabularyState as VocabularyState,
)
