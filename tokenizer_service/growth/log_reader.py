"""Reads a log that is too long for memory: page by page, while others may write."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from tokenizer_service.growth.archive import ArchiveWriter
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.store import Store, StoredReply, StoredRevision
from vocabulary import BrokenChainError, verify

_T = TypeVar("_T")

# Revisions hold up to megabytes of vectors each, replies some kilobytes.
_REVISIONS_PER_PAGE = 16
_REPLIES_PER_PAGE = 256


async def find_broken(vocabulary: LiveVocabulary) -> BrokenChainError | None:
    """Recomputes the chain from the store, up to the revision that serves now.

    Returns:
        What is wrong with the first revision that is, None when all are right.

    Raises:
        StoreUnavailable: the store failed.
    """
    trusted = vocabulary.at(0)
    until = vocabulary.current.reference.revision
    try:
        await vocabulary.read(lambda store: store.check_pages())
        async for page in _revisions(vocabulary, until):
            trusted = verify(trusted, [stored.link for stored in page])
            if trusted != vocabulary.at(trusted.revision):
                first = page[0].link.vocabulary.revision
                raise BrokenChainError(first, "the store holds another chain than the served one")
        async for _ in _replies(vocabulary, until):
            pass  # each is compared with its hash as it is read
    except BrokenChainError as error:
        return error
    if trusted.revision < until:
        return BrokenChainError(trusted.revision + 1, "it is missing")
    return None


async def archive_lines(vocabulary: LiveVocabulary) -> AsyncIterator[bytes]:
    """Yields the lines of an archive of the whole log.

    Raises:
        BrokenChainError: a revision cannot be read.
        StoreUnavailable: the store failed.
    """
    until = vocabulary.current.reference.revision
    writer = ArchiveWriter()
    yield writer.base(vocabulary.at(0))
    async for revisions in _revisions(vocabulary, until):
        for stored in revisions:
            yield writer.revision(stored)
    async for replies in _replies(vocabulary, until):
        for reply in replies:
            yield writer.reply(reply)
    yield writer.end()


async def _revisions(vocabulary: LiveVocabulary, until: int) -> AsyncIterator[list[StoredRevision]]:
    after = 0
    while after < until:
        limit = min(_REVISIONS_PER_PAGE, until - after)
        page = await vocabulary.read(_revisions_after(after, limit))
        if not page:
            return
        yield page
        after += len(page)


async def _replies(vocabulary: LiveVocabulary, until: int) -> AsyncIterator[list[StoredReply]]:
    key = ""
    while page := await vocabulary.read(_replies_after(key, until)):
        yield page
        key = page[-1].call.idempotency_key


def _revisions_after(after: int, limit: int) -> Callable[[Store], list[StoredRevision]]:
    return lambda store: store.revisions(after, limit)


def _replies_after(key: str, until: int) -> Callable[[Store], list[StoredReply]]:
    return lambda store: store.replies(key, until, _REPLIES_PER_PAGE)
