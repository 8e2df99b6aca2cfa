"""What a vocabulary revision is: changes, their canonical bytes, the chain of fingerprints.

Shared by both services, so that the one that makes a chain and the one that
follows it cannot disagree. Knows no wire, no tokenizer library and no service.
"""

from vocabulary.chain import BrokenChainError, base_fingerprint, fingerprint, verify
from vocabulary.revision import (
    TOKENIZER_ID_PATTERN,
    AddedToken,
    Change,
    Initialization,
    Link,
    MarkedToken,
    NewToken,
    Reference,
    Role,
    SpecialToken,
    tokenizer_id_of,
)

__all__ = [
    "TOKENIZER_ID_PATTERN",
    "AddedToken",
    "BrokenChainError",
    "Change",
    "Initialization",
    "Link",
    "MarkedToken",
    "NewToken",
    "Reference",
    "Role",
    "SpecialToken",
    "base_fingerprint",
    "fingerprint",
    "tokenizer_id_of",
    "verify",
]
