"""The durable log of vocabulary revisions."""

from tokenizer_service.store.log import Store
from tokenizer_service.store.records import Call, StoredReply, StoredRevision, StoreError

__all__ = ["Call", "Store", "StoreError", "StoredReply", "StoredRevision"]
