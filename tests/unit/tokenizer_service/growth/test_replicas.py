"""Two vocabularies on one PostgreSQL, as two replicas of the service have them."""

import asyncio
import dataclasses
import time
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import DBAPIError

from rpc.errors import RevisionConflict, StoreUnavailable, VocabularyBehind, VocabularyMismatch
from tests.postgresql_proxy import breaking_commits
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.growth.log_reader import find_broken
from tokenizer_service.growth.replica_follower import ReplicaFollower
from tokenizer_service.growth.revision_writer import Outcome
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.store import Call, Store, schema
from vocabulary import AddedToken, Change, NewToken


def call(key):
    return Call.of(key, b"request")


def adding(*contents):
    """Plans to add special tokens that are not there yet."""

    def plan(tokenizer):
        missing = [one for one in contents if tokenizer.id_of(one) is None]
        tokens = tuple(
            NewToken(id=tokenizer.size + index, token=AddedToken(content, special=True))
            for index, content in enumerate(missing)
        )
        change = Change(tokens)
        after = tokenizer.grown(change)
        return Outcome(change, after, lambda ref: f"{ref.revision}:{ref.size}".encode())

    return plan


def open_replica(base, url, **options):
    metrics = TokenizerMetrics(CollectorRegistry(), "tiny")
    store = Store(url, base.reference, observe=metrics.store)
    return LiveVocabulary(base, store, metrics, **options), store


@pytest.fixture
def base(load):
    return load("byte_level")


@pytest.fixture
async def pair(base, postgresql_url):
    opened = [open_replica(base, postgresql_url)[0] for _ in range(2)]
    yield opened
    for live in opened:
        await live.close()


@asynccontextmanager
async def following(live, store, interval_s):
    follower = ReplicaFollower(live, store.database.listener(interval_s))
    yield
    await follower.close()


async def test_a_replica_writes_after_what_another_wrote(pair):
    one, other = pair
    await one.change(call("a"), adding("<x>"), expected_revision=0)
    assert await other.change(call("b"), adding("<x>", "<y>"), expected_revision=1) == b"2:402"
    assert other.current.id_of("<x>") == 400
    assert other.history[0].link == one.history[0].link
    with pytest.raises(RevisionConflict):
        await one.change(call("c"), adding("<z>"), expected_revision=1)


async def test_one_call_sent_to_two_replicas_at_once_is_made_once(pair):
    for round_number in range(10):
        replies = await asyncio.gather(
            *(
                live.change(
                    call(f"key {round_number}"), adding(f"<{round_number}>"), expected_revision=None
                )
                for live in pair
            )
        )
        assert replies == [b"%d:%d" % (round_number + 1, 401 + round_number)] * 2
    assert pair[0].current.reference == pair[1].current.reference


async def test_concurrent_changes_on_two_replicas_get_dense_ids(pair):
    contents = [f"<t{index}>" for index in range(40)]
    await asyncio.gather(
        *(
            pair[index % 2].change(call(one), adding(one), expected_revision=None)
            for index, one in enumerate(contents)
        )
    )
    for live in pair:
        await live.catch_up()
        assert sorted(live.current.id_of(one) for one in contents) == [*range(400, 440)]
        assert await find_broken(live) is None
    assert [*pair[0].history] == [*pair[1].history]


async def test_of_concurrent_changes_of_one_revision_one_wins(pair):
    results = await asyncio.gather(
        *(
            pair[index % 2].change(call(str(index)), adding(f"<t{index}>"), expected_revision=0)
            for index in range(8)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, bytes) for result in results) == 1
    assert sum(isinstance(result, RevisionConflict) for result in results) == 7


async def test_neither_replica_starves_while_both_write(pair):
    """Each waits for the lock in line, so that nobody is overtaken for long."""
    stop = time.monotonic() + 3.0

    async def write_on(live, name):
        count = 0
        while time.monotonic() < stop:
            key = f"{name} {count}"
            await live.change(call(key), adding(f"<{key}>"), expected_revision=None)
            count += 1
        return count

    counts = await asyncio.gather(*(write_on(live, str(n)) for n, live in enumerate(pair)))
    assert min(counts) > max(counts) / 2


@pytest.mark.parametrize("reaches_server", [True, False], ids=["committed", "not committed"])
async def test_a_connection_lost_in_the_middle_of_commit_changes_no_reply(
    base, postgresql, postgresql_url, reaches_server
):
    with breaking_commits(postgresql.port) as proxy:
        url = sa.make_url(postgresql_url).set(port=proxy.port)
        live, store = open_replica(base, url.render_as_string(hide_password=False))
        proxy.reaches_server = reaches_server
        proxy.num_to_cut = 1
        assert await live.change(call("a"), adding("<x>"), expected_revision=0) == b"1:401"
        assert proxy.num_cut == 1
        assert [one.link for one in store.revisions()] == [one.link for one in live.history]
        assert len(live.history) == 1
        assert await live.change(call("a"), adding("<x>"), expected_revision=0) == b"1:401"
        # When it is lost again and again the caller is told, and asks again.
        proxy.num_to_cut = 2
        with pytest.raises(StoreUnavailable):
            await live.change(call("b"), adding("<y>"), expected_revision=1)
        assert await live.change(call("b"), adding("<y>"), expected_revision=1) == b"2:402"
        await live.close()


async def test_a_request_that_names_a_newer_revision_finds_it_in_the_store(pair):
    one, other = pair
    await one.change(call("a"), adding("<x>"), expected_revision=None)
    await asyncio.gather(*(other.reach(1) for _ in range(20)))
    assert other.require(1).id_of("<x>") == 400
    assert other.size_for(one.current.reference) == 401
    elsewhere = dataclasses.replace(one.current.reference, fingerprint="f" * 64)
    with pytest.raises(VocabularyMismatch):
        other.size_for(elsewhere)


async def test_the_wait_for_a_newer_revision_is_bounded(base, postgresql, postgresql_url):
    live, _ = open_replica(base, postgresql_url, catch_up_timeout_s=0.3)
    await live.reach(7)  # which nobody has written: the store says so
    with pytest.raises(VocabularyBehind) as caught:
        live.require(7)
    assert caught.value.retry_delay_s is not None
    database = sa.make_url(postgresql_url).database
    with postgresql.connect(database) as connection, connection.transaction():
        connection.execute("LOCK TABLE revision IN ACCESS EXCLUSIVE MODE")
        start = time.monotonic()
        await live.reach(7)
        assert 0.25 < time.monotonic() - start < 1.0
    await live.reach(7)  # and it goes on afterwards
    await live.close()


async def test_an_announced_revision_is_there_at_once(base, postgresql_url):
    writer, _ = open_replica(base, postgresql_url)
    reader, store = open_replica(base, postgresql_url)
    async with following(reader, store, interval_s=60):
        for revision in range(1, 4):
            await asyncio.sleep(0.2)  # the first time it may still be connecting
            await writer.change(
                call(f"{revision}"), adding(f"<{revision}>"), expected_revision=None
            )
            assert await reader.wait_beyond(revision - 1, 5.0)
    assert reader.current.reference == writer.current.reference
    for live in (writer, reader):
        await live.close()


async def test_a_revision_whose_announcement_is_lost_is_there_after_the_interval(
    base, postgresql, postgresql_url
):
    writer, silent = open_replica(base, postgresql_url)
    silent.database.announce = lambda _: None
    reader, store = open_replica(base, postgresql_url)
    async with following(reader, store, interval_s=0.3):
        await asyncio.sleep(0.2)
        await writer.change(call("a"), adding("<x>"), expected_revision=None)
        assert await reader.wait_beyond(0, 5.0)
        # Nor does a session that ends keep it from looking, or from listening again.
        with postgresql.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "
                "pg_backend_pid() AND datname = %s",
                [sa.make_url(postgresql_url).database],
            )
        await writer.change(call("b"), adding("<y>"), expected_revision=None)
        assert await reader.wait_beyond(1, 5.0)
    for live in (writer, reader):
        await live.close()


async def test_what_does_not_continue_the_chain_is_never_served(base, postgresql_url, caplog):
    writer, _ = open_replica(base, postgresql_url)
    reader, store = open_replica(base, postgresql_url)
    await writer.change(call("a"), adding("<x>"), expected_revision=None)
    with store.database.engine.begin() as connection:
        connection.execute(sa.update(schema.revision).values(size=999))
    async with following(reader, store, interval_s=0.05):
        await asyncio.sleep(0.5)
        assert reader.current.reference.revision == 0
        with store.database.engine.begin() as connection:
            connection.execute(sa.update(schema.revision).values(size=401))
        assert await reader.wait_beyond(0, 5.0)
    for live in (writer, reader):
        await live.close()


async def test_a_writer_that_stops_in_the_middle_does_not_stop_the_others(base, postgresql_url):
    live, _ = open_replica(base, postgresql_url)
    _, stopped = open_replica(base, postgresql_url)
    connection = stopped.database.engine.connect()
    name = "idle_in_transaction_session_timeout"
    assert connection.exec_driver_sql(f"SHOW {name}").scalar_one() == "10s"
    stopped.database.lock(connection)  # and then says nothing more
    connection.exec_driver_sql(f"SET {name} = '1s'")
    start = time.monotonic()
    assert await live.change(call("a"), adding("<x>"), expected_revision=None) == b"1:401"
    assert 0.5 < time.monotonic() - start < 10
    with pytest.raises(DBAPIError):
        connection.commit()
    connection.close()
    await live.close()
    stopped.close()
