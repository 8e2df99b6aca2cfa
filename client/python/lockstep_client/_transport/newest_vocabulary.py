"""The newest vocabulary that the services have told a client of."""

import threading
from typing import Any

from google.protobuf.message import Message
from lockstep.v1 import vocabulary_pb2 as vocabulary_pb

# What is sent where a request is wrapped in another one.
_WRAPPED = ("request", "generate_request")


class NewestVocabulary:
    """Goes with ids that say nothing of their vocabulary, so that a new id can be used at once.

    The connections of one client share it, and so may threads.
    """

    def __init__(self) -> None:
        self._seen: vocabulary_pb.VocabularyRef | None = None
        self._lock = threading.Lock()

    def note(self, request: Any, response: Any) -> None:
        """Takes what an answer says, unless it is of a change that was not made."""
        if not _names_vocabulary(response) or getattr(request, "dry_run", False):
            return
        with self._lock:
            if self._seen is None or _follows(response.vocabulary, self._seen):
                self._seen = response.vocabulary

    def fill(self, request: Any) -> None:
        """Lets a request without a vocabulary ask for this one, or a newer one."""
        for name in _WRAPPED:
            request = getattr(request, name, request)
        seen = self._seen
        if seen is not None and _names_vocabulary(request) and not request.HasField("vocabulary"):
            request.vocabulary.CopyFrom(seen)
            request.vocabulary.or_newer = True


def _names_vocabulary(message: Message) -> bool:
    field = message.DESCRIPTOR.fields_by_name.get("vocabulary")
    return field is not None and field.message_type is vocabulary_pb.VocabularyRef.DESCRIPTOR


def _follows(new: vocabulary_pb.VocabularyRef, seen: vocabulary_pb.VocabularyRef) -> bool:
    return new.tokenizer_id != seen.tokenizer_id or new.revision > seen.revision
