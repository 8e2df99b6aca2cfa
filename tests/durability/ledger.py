"""What callers of one vocabulary asked for and were told, and whether it is still so."""

import threading
import uuid

from lockstep.v1 import vocabulary_admin_service_pb2 as admin
from lockstep.v1 import vocabulary_pb2

TOKENS_PER_CALL = 2


class Ledger:
    """Threads note their calls here; after a restart, the service is compared with it."""

    def __init__(self, base_size: int) -> None:
        self._base_size = base_size
        self._lock = threading.Lock()
        self._asked: dict[str, admin.AddTokensRequest] = {}
        self._told: dict[str, bytes] = {}
        self._unanswered: dict[str, admin.AddTokensRequest] = {}

    @property
    def num_told(self) -> int:
        """Calls that were acknowledged."""
        return len(self._told)

    def add(self, stubs) -> tuple[str, bytes]:
        """Adds tokens that nobody asked for before. Raises what the call raises.

        Returns:
            The key of the call, and the bytes of its reply.
        """
        key = str(uuid.uuid4())
        request = admin.AddTokensRequest(idempotency_key=key)
        for index in range(TOKENS_PER_CALL):
            request.tokens.add(
                token=vocabulary_pb2.AddedToken(content=f"<{key}.{index}>", special=True)
            )
        with self._lock:
            self._asked[key] = request
            self._unanswered[key] = request
        response = stubs.admin.AddTokens(request)
        told = response.SerializeToString(deterministic=True)
        with self._lock:
            self._told[key] = told
            del self._unanswered[key]
        return key, told

    def check(self, stubs) -> int:
        """Compares a service that was started again with what callers were told.

        Calls that nobody had an answer to are made again, and count as told from then.

        Returns:
            How many of those had been written all the same.
        """
        revisions = list_revisions(stubs)
        assert stubs.admin.VerifyRevisions(admin.VerifyRevisionsRequest()).valid
        keys = [self._key_of(revision) for revision in revisions[1:]]
        assert len(set(keys)) == len(keys)
        assert set(self._told) <= set(keys), "an acknowledged revision is lost"
        for told in self._told.values():
            response = admin.AddTokensResponse.FromString(told)
            revision = revisions[response.vocabulary.revision]
            assert revision.vocabulary == response.vocabulary
            assert [token.id for token in revision.tokens] == [
                result.id for result in response.results
            ]
        written = self._answer(stubs, keys)
        for key, told in list(self._told.items())[-16:]:
            again = stubs.admin.AddTokens(self._asked[key])
            assert again.SerializeToString(deterministic=True) == told
        return written

    def _key_of(self, revision) -> str:
        """Returns the key of the call that made a revision, which must be whole."""
        contents = [token.token.content for token in revision.tokens]
        key = contents[0][1:].partition(".")[0]
        assert contents == [token.token.content for token in self._asked[key].tokens]
        first = self._base_size + (revision.vocabulary.revision - 1) * TOKENS_PER_CALL
        assert [token.id for token in revision.tokens] == [first, first + 1]
        return key

    def _answer(self, stubs, keys: list[str]) -> int:
        written = set(self._unanswered) & set(keys)
        for key, request in self._unanswered.items():
            response = stubs.admin.AddTokens(request)
            assert not any(result.existing for result in response.results)
            if key in written:
                assert response.vocabulary.revision == keys.index(key) + 1
            else:
                assert response.vocabulary.revision > len(keys)
            self._told[key] = response.SerializeToString(deterministic=True)
        self._unanswered.clear()
        return len(written)


def list_revisions(stubs) -> list:
    """Reads the whole chain, revision 0 first."""
    revisions = []
    request = admin.ListRevisionsRequest(page_size=1000)
    while True:
        page = stubs.admin.ListRevisions(request)
        revisions.extend(page.revisions)
        if not page.next_page_token:
            return revisions
        request.page_token = page.next_page_token
