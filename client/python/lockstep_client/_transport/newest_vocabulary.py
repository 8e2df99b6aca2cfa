"""The newest vocabulary that the services have told a client of."""

import threading
from typing import Any

import grpc
from google.protobuf.message import Message
from lockstep.v1 import vocabulary_pb2 as vocabulary_pb

from lockstep_client.exceptions import LockstepError, VocabularyBehind, VocabularyMismatch

# What is sent where a request is wrapped in another one.
_WRAPPED = ("request", "generate_request")


class NewestVocabulary:
    """Goes with ids that say nothing of their vocabulary, so that a new id can be used at once.

    The connections of one client share it, and so may threads.
    """

    def __init__(self) -> None:
        self._seen: vocabulary_pb.VocabularyRef | None = None
        self._owner_says: vocabulary_pb.VocabularyRef | None = None
        self._lock = threading.Lock()

    def note(self, request: Any, response: Any, *, by_owner: bool) -> None:
        """Takes what an answer says, unless it is of a change that was not made.

        Args:
            request: what was asked.
            response: the answer.
            by_owner: whether the tokenizer service gave it, which owns the vocabulary.
        """
        if not _names_vocabulary(response) or getattr(request, "dry_run", False):
            return
        with self._lock:
            if by_owner:
                self._owner_says = response.vocabulary
            if self._seen is None or _follows(response.vocabulary, self._seen):
                self._seen = response.vocabulary

    def fill(self, request: Any) -> vocabulary_pb.VocabularyRef | None:
        """Lets a request without a vocabulary ask for this one, or a newer one.

        Returns:
            What it asks for, if it did not by itself.
        """
        for name in _WRAPPED:
            request = getattr(request, name, request)
        seen = self._seen
        if seen is not None and _names_vocabulary(request) and not request.HasField("vocabulary"):
            request.vocabulary.CopyFrom(seen)
            request.vocabulary.or_newer = True
            return seen
        return None

    def explained(
        self, error: LockstepError, filled: vocabulary_pb.VocabularyRef | None, *, by_owner: bool
    ) -> LockstepError:
        """Returns what a failure means where the vocabulary has gone back, and forgets it then.

        The tokenizer service has looked into its store before it says that it does not have a
        revision. A model service may merely be behind, unless the tokenizer service is, too.

        Args:
            error: how a call has failed in the end.
            filled: what `fill` let it ask for.
            by_owner: whether the tokenizer service was asked.
        """
        if filled is None or not isinstance(error, VocabularyBehind | VocabularyMismatch):
            return error
        with self._lock:
            newest = self._owner_says
            if not by_owner and (newest is None or _is_at_least(newest, filled)):
                return error
            self._seen = None
        return _gone_back(error, filled)


def _names_vocabulary(message: Message) -> bool:
    field = message.DESCRIPTOR.fields_by_name.get("vocabulary")
    return field is not None and field.message_type is vocabulary_pb.VocabularyRef.DESCRIPTOR


def _follows(new: vocabulary_pb.VocabularyRef, seen: vocabulary_pb.VocabularyRef) -> bool:
    return new.tokenizer_id != seen.tokenizer_id or new.revision > seen.revision


def _is_at_least(new: vocabulary_pb.VocabularyRef, seen: vocabulary_pb.VocabularyRef) -> bool:
    if new.revision == seen.revision:
        return new.fingerprint == seen.fingerprint
    return new.revision > seen.revision


def _gone_back(error: LockstepError, seen: vocabulary_pb.VocabularyRef) -> VocabularyMismatch:
    there = error.metadata.get("serverRevision", "another")
    return VocabularyMismatch(
        f"The tokenizer service has given this client revision {seen.revision} of the vocabulary "
        f"and does not have it any more (revision {there}): its store was set back, or is another "
        "one. Encode again: ids of tokens that were added mean nothing now, or something else. "
        "The next call takes the vocabulary as it is.",
        code=grpc.StatusCode.FAILED_PRECONDITION,
        metadata={**error.metadata, "cause": "set_back"},
    )
