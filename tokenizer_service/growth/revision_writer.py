"""Makes changes durable, after the changes that other replicas made durable before them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rpc.errors import InvalidField, RevisionConflict
from tokenizer_service.growth.archive import Archive, check_same
from tokenizer_service.store import Call, Store, StoredRevision
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import BrokenChainError, Change, Link, Reference


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a changing call would do.

    Attributes:
        change: the change; an empty one makes no revision.
        after: the tokenizer after it, the same as before for an empty one.
        respond: builds the reply, given the state after the change.
    """

    change: Change
    after: Tokenizer
    respond: Callable[[Reference], bytes]


Plan = Callable[[Tokenizer], Outcome]


@dataclass(frozen=True, slots=True)
class Written:
    """What a changing call did.

    Attributes:
        response: the reply.
        tokenizer: the newest state.
        revisions: the steps to it from the state that was served, oldest first.
        is_new: whether the call made the last of them.
    """

    response: bytes
    tokenizer: Tokenizer
    revisions: Sequence[StoredRevision]
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Extension:
    """What importing an archive did.

    Attributes:
        tokenizer: the newest state.
        revisions: the steps to it from the state that was served, oldest first.
        num_revisions: revisions that were new.
        num_replies: replies that were new.
    """

    tokenizer: Tokenizer
    revisions: Sequence[StoredRevision]
    num_revisions: int
    num_replies: int


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
        after = outcome.after
        response = outcome.respond(after.reference)
        if after is before:
            log.append(None, call, response)
            return Written(response, before, newer)
        link = Link(before.reference.fingerprint, outcome.change, after.reference)
        create_time = log.append(link, call, response)
    return Written(response, after, [*newer, StoredRevision(link, create_time)], is_new=True)


def extend(
    store: Store,
    serving: Callable[[], Tokenizer],
    at: Callable[[int], Reference],
    archive: Archive,
) -> Extension:
    """Makes what continues the chain durable: all of it or nothing. Blocks while others write.

    Args:
        store: the log.
        serving: returns the newest state that is served here.
        at: returns the state at a revision that is served here.
        archive: what was exported.

    Raises:
        BrokenChainError: the store does not continue what is served.
        InvalidField: the revisions cannot be served.
        StoreUnavailable: the store failed; nothing was written, or `revisions`
            shows that it was.
        VocabularyMismatch: the archive is of another chain.
    """
    with store.writing() as log:
        served = serving()
        before, newer = follow(served, log.revisions(served.reference.revision))
        present = {one.link.vocabulary.revision: one.link.vocabulary for one in newer}
        new = []
        for stored in archive.revisions:
            state = stored.link.vocabulary
            if state.revision > before.reference.revision:
                new.append(stored)
            else:
                check_same(state, present.get(state.revision) or at(state.revision))
        try:
            after, _ = follow(before, new)
        except BrokenChainError as error:
            raise InvalidField("data", str(error)) from None
        num_replies = log.extend(new, archive.replies)
    return Extension(after, [*newer, *new], len(new), num_replies)


def follow(
    tokenizer: Tokenizer, stored: Sequence[StoredRevision]
) -> tuple[Tokenizer, Sequence[StoredRevision]]:
    """Applies stored revisions and checks that they lead where they say.

    Returns:
        The tokenizer after them, and the revisions.

    Raises:
        BrokenChainError: they do not.
    """
    if not stored:
        return tokenizer, stored
    grown = tokenizer.grown(*(revision.link.change for revision in stored))
    if grown.reference != stored[-1].link.vocabulary:
        raise BrokenChainError(grown.reference.revision, "it belongs to another chain")
    return grown, stored


def check_newest(tokenizer: Tokenizer, expected_revision: int | None) -> None:
    """Checks that a state is the one that a caller expects.

    Raises:
        RevisionConflict: it is not.
    """
    newest = tokenizer.reference.revision
    if expected_revision is not None and expected_revision != newest:
        raise RevisionConflict(expected=expected_revision, current=newest)
