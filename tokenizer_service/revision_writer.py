"""Makes one change durable, after whatever other replicas made durable before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rpc.errors import RevisionConflict
from tokenizer_service.store import Call, Store, StoredRevision
from tokenizer_service.tokenizer import Tokenizer
from vocabulary import BrokenChainError, Change, Link, Reference


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a changing call would do.

    Attributes:
        change: the change; an empty one makes no revision.
        respond: builds the reply, given the state after the change.
    """

    change: Change
    respond: Callable[[Reference], bytes]


Plan = Callable[[Tokenizer], Outcome]


@dataclass(frozen=True, slots=True)
class Written:
    """What a changing call did.

    Attributes:
        response: the reply.
        tokenizer: the newest state.
        revisions: those that led to it from the state that was served, oldest first.
        is_new: whether the call made the last of them.
    """

    response: bytes
    tokenizer: Tokenizer
    revisions: Sequence[StoredRevision]
    is_new: bool = False


def write(
    store: Store,
    serving: Callable[[], Tokenizer],
    call: Call,
    plan: Plan,
    expected_revision: int | None,
) -> Written:
    """Answers a changing call: durable on return. Blocks while others write.

    Args:
        store: the log.
        serving: returns the newest state that is served here.
        call: identifies the call.
        plan: works out the change against the newest state of all replicas.
        expected_revision: the newest revision the caller knows, None for any.

    Raises:
        BrokenChainError: the store does not continue what is served.
        IdempotencyKeyReused: the key was used for another request.
        RevisionConflict: there is a newer revision than expected.
        StoreUnavailable: the store failed; nothing was written, or the same call
            finds that it was.
    """
    with store.writing() as log:
        served = serving()
        before, newer = follow(served, log.revisions(served.reference.revision))
        if (reply := log.reply(call)) is not None:
            return Written(reply, before, newer)
        check_newest(before, expected_revision)
        outcome = plan(before)
        if outcome.change == Change():
            response = outcome.respond(before.reference)
            log.append(None, call, response)
            return Written(response, before, newer)
        after = before.grown(outcome.change)
        response = outcome.respond(after.reference)
        link = Link(before.reference.fingerprint, outcome.change, after.reference)
        create_time = log.append(link, call, response)
    return Written(response, after, [*newer, StoredRevision(link, create_time)], is_new=True)


def follow(
    tokenizer: Tokenizer, stored: Sequence[StoredRevision]
) -> tuple[Tokenizer, Sequence[StoredRevision]]:
    """Applies stored revisions and checks that they lead where they say.

    Returns:
        The tokenizer after them, and the revisions.

    Raises:
        BrokenChainError: they do not.
    """
    for revision in stored:
        tokenizer = tokenizer.grown(revision.link.change)
        if tokenizer.reference != revision.link.vocabulary:
            raise BrokenChainError(tokenizer.reference.revision, "it is of another chain")
    return tokenizer, stored


def check_newest(tokenizer: Tokenizer, expected_revision: int | None) -> None:
    """Checks that a state is the one that a caller expects.

    Raises:
        RevisionConflict: it is not.
    """
    newest = tokenizer.reference.revision
    if expected_revision is not None and expected_revision != newest:
        raise RevisionConflict(expected=expected_revision, current=newest)
