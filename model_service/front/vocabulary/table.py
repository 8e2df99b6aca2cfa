"""The chain of vocabulary revisions that this replica has, and what a request's reference means."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from lockstep.v1 import vocabulary_pb2

from model_service.protocol import EngineInfo
from rpc.errors import Loading, VocabularyBehind, VocabularyMismatch
from vocabulary import Reference, Role, SpecialToken
from wire.vocabulary import find_state, read_reference


class VocabularyTable:
    """Every revision applied so far, oldest first. Used by the event loop only.

    Identity is the fingerprint. A reference without one is compared by the name
    of its tokenizer, and a checkpoint without a tokenizer, which has no
    fingerprint, is not compared at all.

    Attributes:
        followed: whether revisions can still come from a tokenizer service.
        address: of that service, for messages that say why a revision is not here.
        refused: why nothing more of what it has is taken; empty while that is not so.
        is_another: whether that is because it has another vocabulary.
        unreachable: why it was not reached the last time; empty while it is followed.
        spelled: whether the engine knows the bytes that every id stands for.
        wanted: set while a request waits for a revision that is yet to come.
    """

    def __init__(self, *, followed: bool, wait_s: float, address: str = "") -> None:
        """Starts without any revision.

        Args:
            followed: whether a tokenizer service is followed.
            wait_s: how long a request waits for a revision that is yet to come.
            address: of that service.
        """
        self.followed = followed
        self.address = address
        self.refused = ""
        self.is_another = False
        self.unreachable = "it has not been reached yet"
        self.spelled = False
        self.wanted = asyncio.Event()
        self._num_waiting = 0
        self._wait_s = wait_s
        self._chain: list[Reference] = []
        self._roles: list[Mapping[Role, int]] = []
        self._not_generable: set[int] = set()
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

    def described(self, info: EngineInfo, revision: int) -> EngineInfo:
        """Describes a model, and its defaults, as requests of a revision that is there see it."""
        info = with_roles(info, self.roles(revision))
        return msgspec.structs.replace(info, not_generable=self._not_generable)

    def append(
        self,
        reference: Reference,
        special_tokens: Sequence[SpecialToken] = (),
        not_generable: Iterable[int] = (),
    ) -> None:
        """Adds the next revision, which the engine has applied.

        Revision 0 may be added twice: a checkpoint without a tokenizer has none of its own, and
        takes the one of the tokenizer service that it comes to follow.

        Args:
            reference: the state after it.
            special_tokens: the roles that it gives.
            not_generable: the ids that it adds and that must not be generated.
        """
        if len(self._chain) == 1 and not reference.revision and not self._chain[0].fingerprint:
            self._chain[0] = reference
            return
        if reference.revision != len(self._chain):
            raise AssertionError("Revisions are added in order. This is a bug.")
        given = {special.role: special.token_id for special in special_tokens}
        self._roles.append({**(self._roles[-1] if self._roles else {}), **given})
        self._not_generable.update(not_generable)
        self._chain.append(reference)
        self._grown.set()
        self._grown = asyncio.Event()

    async def resolve(self, reference: vocabulary_pb2.VocabularyRef | None) -> Reference:
        """Finds the revision that a request means.

        Args:
            reference: the request's reference, or None for the newest revision.

        Raises:
            InvalidField: the revision is negative, or has another size.
            VocabularyMismatch: it is not a state that this replica has had.
            VocabularyBehind: it did not arrive in time.
        """
        if reference is None:
            return self.newest
        given = read_reference(reference)
        state = self._find(given)
        if state is None:
            await self._wait_for(given)
            state = self._find(given)
        if state is None:
            raise VocabularyBehind(
                request_revision=given.revision,
                server_revision=self.newest.revision,
                reason=self._why_behind(),
            )
        return self.newest if reference.or_newer else state

    def _find(self, given: Reference) -> Reference | None:
        return find_state(given, self.newest, self.at, self._remedy())

    async def _wait_for(self, given: Reference) -> None:
        """Waits for a revision, for a bounded time.

        Raises:
            VocabularyMismatch: it can never come.
        """
        if not self.followed:
            remedy = (
                "it follows no tokenizer service, so it stays at revision "
                f"{self.newest.revision}: start it with --tokenizer-address HOST:PORT"
            )
            raise VocabularyMismatch(given, self.newest, cause="follows_nobody", remedy=remedy)
        self._num_waiting += 1
        self.wanted.set()
        try:
            async with asyncio.timeout(self._wait_s):
                while given.revision > self.newest.revision:
                    await self._grown.wait()
        except TimeoutError:
            if self.refused and self.is_another:
                raise VocabularyMismatch(given, self.newest, remedy=self._remedy()) from None
        finally:
            self._num_waiting -= 1
            if not self._num_waiting:
                self.wanted.clear()

    def _why_behind(self) -> str:
        """Returns what keeps newer revisions from this replica; empty where nothing does."""
        if self.refused:
            return (
                f"it cannot take what the tokenizer service at {self.address} has: {self.refused}"
            )
        if self.unreachable:
            return (
                f"it does not reach the tokenizer service at {self.address}, {self.unreachable}; "
                "start that one, or name another with --tokenizer-address"
            )
        return ""

    def _remedy(self) -> str:
        """Returns what to do about ids of another tokenizer, or of another history of it."""
        why = "the ids are from another tokenizer, or from another history of this one: "
        if self.followed and self.refused and self.is_another:
            return f"{why}the one of {self.address} is not followed, because {self.refused}"
        if self.followed:
            return f"{why}encode with the tokenizer service at {self.address}, which it follows"
        return f"{why}start both services with the same --model"


def with_roles(info: EngineInfo, roles: Mapping[Role, int]) -> EngineInfo:
    """Describes a model as requests of a revision see it.

    An end-of-sequence id that a revision set counts in addition to the model's own ids, which its
    weights were trained to generate.

    Args:
        info: the model at revision 0.
        roles: the roles that revisions have given.
    """
    if not roles:
        return info
    ends = info.default_config.eos_token_ids
    if "eos" in roles and roles["eos"] not in ends:
        ends = (*ends, roles["eos"])
    return msgspec.structs.replace(
        info,
        eos_token_ids=list(ends),
        bos_token_id=roles.get("bos", info.bos_token_id),
        pad_token_id=roles.get("pad", info.pad_token_id),
        default_config=msgspec.structs.replace(info.default_config, eos_token_ids=ends),
    )
