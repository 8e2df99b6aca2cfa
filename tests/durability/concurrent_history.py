"""What clients saw of a vocabulary while they changed it, and whether one history explains it."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from lockstep.v1 import vocabulary_admin_service_pb2 as pb

from tokenizer_service.store import StoredRevision
from vocabulary import Reference, verify


@dataclass
class ClientCall:
    """One call, from its first attempt to its first answer.

    Attributes:
        request: what was sent, each time.
        start_s: when it was first sent, by a clock that all clients share.
        end_s: when it was first answered.
        replies: the bytes of every answer.
        num_failed: attempts that reached a replica and were not answered.
        failed_us: when the last of them before the first answer failed, in Unix time; or 0.
    """

    request: pb.AddTokensRequest
    start_s: float
    end_s: float = 0.0
    replies: list[bytes] = field(default_factory=list)
    num_failed: int = 0
    failed_us: int = 0

    @property
    def response(self) -> pb.AddTokensResponse:
        """The first answer."""
        return pb.AddTokensResponse.FromString(self.replies[0])


def problems(
    base: Reference, log: Sequence[StoredRevision], calls: Sequence[ClientCall]
) -> list[str]:
    """Returns everything about the calls that the log does not explain.

    Args:
        base: revision 0.
        log: every revision, oldest first.
        calls: every call, all of them answered.

    Raises:
        BrokenChainError: the log is not a chain, or its ids have gaps.
    """
    newest = verify(base, [stored.link for stored in log])
    states = [base, *(stored.link.vocabulary for stored in log)]
    ids = {new.token.content: new.id for stored in log for new in stored.link.change.tokens}
    found = []
    if len(ids) != newest.size - base.size:
        found.append("a token was added twice")
    makers: dict[int, int] = {}
    for number, call in enumerate(calls):
        found += [f"call {number}: {what}" for what in _unexplained(call, states, ids)]
        if any(not result.existing for result in call.response.results):
            makers.setdefault(call.response.vocabulary.revision, number)
    made = sum(any(not r.existing for r in call.response.results) for call in calls)
    if not (made == len(makers) == newest.revision):
        found.append(f"{made} calls made {len(makers)} of {newest.revision} revisions")
    return found + _out_of_order(calls, makers)


def _unexplained(call: ClientCall, states: Sequence[Reference], ids: dict[str, int]) -> list[str]:
    """Compares an answer with the state that it names."""
    if len(set(call.replies)) != 1:
        return ["its answers differ"]
    response = call.response
    revision = response.vocabulary.revision
    if revision >= len(states) or response.vocabulary.fingerprint != states[revision].fingerprint:
        return ["its revision is not in the log"]
    found = []
    before = states[max(revision - 1, 0)].size
    grew = any(not result.existing for result in response.results)
    for token, result in zip(call.request.tokens, response.results, strict=True):
        if ids.get(token.token.content) != result.id:
            found.append("an id it was told is another in the log")
        if result.existing and grew and result.id >= before:
            found.append("a token existed that its revision added")
        if not result.existing and not before <= result.id < states[revision].size:
            found.append("a token it added is not of its revision")
        if result.id >= states[revision].size:
            found.append("an id it was told is beyond its revision")
    return found


def _out_of_order(calls: Sequence[ClientCall], makers: dict[int, int]) -> list[str]:
    """Finds calls that saw less than what had been answered before they began.

    The log is one register that only grows, so this is all of linearizability: a call
    that begins after another was answered sees at least what that one saw, and more
    if it made a revision.
    """
    answered = sorted((call.end_s, call.response.vocabulary.revision) for call in calls)
    ends = [end for end, _ in answered]
    highest = [0]
    for _, revision in answered:
        highest.append(max(highest[-1], revision))
    found = []
    for number, call in enumerate(calls):
        revision = call.response.vocabulary.revision
        seen = highest[bisect.bisect_left(ends, call.start_s)]
        if revision < seen + (makers.get(revision) == number):
            found.append(f"call {number}: it saw revision {revision} after {seen} was answered")
    return found
