import dataclasses

import pytest

from tests.unit.tokenizer_service.growth.test_live_vocabulary import Harness, adding, call
from tokenizer_service.growth import log_reader
from tokenizer_service.growth.archive import ArchiveReader
from tokenizer_service.growth.log_reader import archive_lines, find_broken

COUNT = 5


@pytest.fixture(params=[1, 2, 16])
async def harness(load, monkeypatch, request):
    """Five revisions, read in pages of one, of two and in one page."""
    monkeypatch.setattr(log_reader, "_REVISIONS_PER_PAGE", request.param)
    monkeypatch.setattr(log_reader, "_REPLIES_PER_PAGE", request.param)
    made = Harness(load("byte_level"))
    for index in range(COUNT):
        await made.live.change(call(key(index)), adding(f"<{index}>"), expected_revision=None)
    yield made
    await made.live.close()


def key(number):
    return f"00000000-0000-0000-0000-{number:012x}"


def altering(harness, monkeypatch, alter):
    """Lets the store return what `alter` makes of each revision that it has."""
    revisions = harness.store.revisions
    monkeypatch.setattr(
        harness.store,
        "revisions",
        lambda *arguments: [new for one in revisions(*arguments) if (new := alter(one))],
    )


async def test_a_log_that_nobody_touched_is_valid(harness):
    assert await find_broken(harness.live) is None


@pytest.mark.parametrize("revision", range(1, COUNT + 1))
async def test_the_first_altered_revision_is_found(harness, monkeypatch, revision):
    def alter(stored):
        if stored.link.vocabulary.revision != revision:
            return stored
        (token,) = stored.link.change.tokens
        token = dataclasses.replace(token, generable=True)
        change = dataclasses.replace(stored.link.change, tokens=(token,))
        return dataclasses.replace(stored, link=dataclasses.replace(stored.link, change=change))

    altering(harness, monkeypatch, alter)
    assert (await find_broken(harness.live)).revision == revision


@pytest.mark.parametrize("revision", range(1, COUNT + 1))
async def test_a_missing_revision_is_found(harness, monkeypatch, revision):
    altering(
        harness,
        monkeypatch,
        lambda stored: stored if stored.link.vocabulary.revision != revision else None,
    )
    assert (await find_broken(harness.live)).revision == revision


async def test_another_valid_chain_than_the_one_that_serves_is_found(harness, load, monkeypatch):
    other = Harness(load("byte_level"))
    for index in range(COUNT):
        await other.live.change(call(key(index)), adding(f"<{index}x>"), expected_revision=None)
    monkeypatch.setattr(harness.store, "revisions", other.store.revisions)
    assert (await find_broken(harness.live)).revision == 1
    await other.live.close()


async def test_an_archive_has_every_revision_and_every_reply(harness):
    await harness.live.change(call(key(99)), adding(), expected_revision=None)
    reader = ArchiveReader(harness.live.at(0), ())
    async for line in archive_lines(harness.live):
        reader.feed(line)
    archive = reader.finish()
    assert list(archive.revisions) == list(harness.live.history)
    assert [reply.call.idempotency_key for reply in archive.replies] == [
        *map(key, range(COUNT)),
        key(99),
    ]
    assert [reply.revision for reply in archive.replies] == [1, 2, 3, 4, 5, 5]


async def test_an_archive_ends_where_the_log_ended_when_it_began(harness):
    lines = archive_lines(harness.live)
    reader = ArchiveReader(harness.live.at(0), ())
    reader.feed(await anext(lines))
    await harness.live.change(call(key(99)), adding("<late>"), expected_revision=None)
    async for line in lines:
        reader.feed(line)
    archive = reader.finish()
    assert (archive.newest.revision, len(archive.replies)) == (COUNT, COUNT)
