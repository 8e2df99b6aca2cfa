"""The chain of vocabulary revisions that this replica has, and what a request's reference means."""

import asyncio
from collections.abc import Mapping, Sequence

from lockstep.v1 import vocabulary_pb2

from rpc.errors import InvalidField, Loading, VocabularyBehind, VocabularyMismatch
from vocabulary import Reference, Role, SpecialToken


class VocabularyTable:
    """Every revision applied so far, oldest first. Used by the event loop only.

    Identity is the fingerprint. A reference without one is compared by the name
    of its tokenizer, and a checkpoint without a tokenizer, which has no
    fingerprint, is not compared at all.

    Attributes:
        followed: whether revisions can still come from a tokenizer service.
        spelled: whether the engine knows the bytes that every id stands for.
        wanted: set while a request waits for a revision that is yet to come.
    """

    def __init__(self, *, followed: bool, wait_s: float) -> None:
        """Starts without any revision.

        Args:
            followed: whether a tokenizer service is followed.
            wait_s: how long a request waits for a revision that is yet to come.
        """
        self.followed = followed
        self.spelled = False
        self.wanted = asyncio.Event()
        self._num_waiting = 0
        self._wait_s = wait_s
        self._chain: list[Reference] = []
        self._roles: list[Mapping[Role, int]] = []
        self._grown = asyncio.Event()

    @property
    def newest(self) -> Reference:
        """The newest revision.

        Raises:
            Loading: not even revision 0 is known yet.
        """
        if not self._chain:
            raise Loading
        return self._chain[-1]

    def __len__(self) -> int:
        """Number of revisions, revision 0 included."""
        return len(self._chain)

    def at(self, revision: int) -> Reference:
        """Returns a revision that is there."""
        return self._chain[revision]

    def roles(self, revision: int) -> Mapping[Role, int]:
        """Returns the roles that revisions up to one that is there have given, and to which id."""
        return self._roles[revision]

    def append(self, reference: Reference, special_tokens: Sequence[SpecialToken] = ()) -> None:
        """Adds the next revision, which the engine has applied.

        Args:
            reference: the state after it.
            special_tokens: the roles that it gives.
        """
        if reference.revision != len(self._chain):
            raise AssertionError("Revisions are added in order. This is a bug.")
        given = {special.role: special.token_id for special in special_tokens}
        self._roles.append({**(self._roles[-1] if self._roles else {}), **given})
        self._chain.append(reference)
        self._grown.set()
        self._grown = asyncio.Event()

    async def resolve(self, reference: vocabulary_pb2.VocabularyRef | None) -> Reference:
        """Finds the revision that a request means.

        Args:
            reference: the request's reference, or None for the newest revision.

        Raises:
            InvalidField: the revision is negative.
            VocabularyMismatch: it is not a state that this replica has had.
            VocabularyBehind: it did not arrive in time.
        """
        if reference is None:
            return self.newest
        if reference.revision < 0:
            raise InvalidField("vocabulary.revision", "must be >= 0")
        if reference.revision > self.newest.revision:
            await self._wait_for(reference)
        ours = self._chain[reference.revision]
        if not _agree(reference, ours):
            raise _mismatch(reference, ours)
        return ours

    async def _wait_for(self, reference: vocabulary_pb2.VocabularyRef) -> None:
        if not self.followed:
            raise _mismatch(reference, self.newest)
        self._num_waiting += 1
        self.wanted.set()
        try:
            async with asyncio.timeout(self._wait_s):
                while reference.revision > self.newest.revision:
                    await self._grown.wait()
        except TimeoutError:
            raise VocabularyBehind(
                request_revision=reference.revision, server_revision=self.newest.revision
            ) from None
        finally:
            self._num_waiting -= 1
            if not self._num_waiting:
                self.wanted.clear()


def _agree(theirs: vocabulary_pb2.VocabularyRef, ours: Reference) -> bool:
    if not ours.fingerprint:
        return True
    if theirs.fingerprint:
        return theirs.fingerprint == ours.fingerprint
    return theirs.tokenizer_id in ("", ours.tokenizer_id)


def _mismatch(theirs: vocabulary_pb2.VocabularyRef, ours: Reference) -> VocabularyMismatch:
    return VocabularyMismatch(
        request_tokenizer_id=theirs.tokenizer_id,
        request_revision=theirs.revision,
        request_fingerprint=theirs.fingerprint,
        server_tokenizer_id=ours.tokenizer_id,
        server_revision=ours.revision,
        server_fingerprint=ours.fingerprint,
    )
