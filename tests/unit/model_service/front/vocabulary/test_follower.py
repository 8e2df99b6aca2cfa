"""Following a tokenizer service, over real gRPC, with an engine that counts."""

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import grpc
import pytest
from lockstep.v1 import tokenizer_service_pb2 as messages
from lockstep.v1 import tokenizer_service_pb2_grpc as services
from lockstep.v1 import vocabulary_pb2
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from model_service.front.metrics import ModelMetrics
from model_service.front.vocabulary.follower import Follower
from model_service.front.vocabulary.following import Following
from model_service.front.vocabulary.service import Backoff, TokenizerAddress
from model_service.front.vocabulary.table import VocabularyTable
from model_service.protocol import Finish, Generate, GrowVocabulary, SequenceSpec, SpellTokens
from model_service.protocol.parameters import GenerationConfig
from rpc.errors import InvalidField
from tests.fakes.engine import engine
from vocabulary import Reference
from vocabulary.chain import follow
from wire.vocabulary import read_change, vocabulary_ref

BASE = Reference("tiny", 0, "ab" * 32, 32)


def spell(token_id: int) -> bytes:
    """Two letters per id: aa, ab, ac and so on."""
    return bytes([97 + token_id // 26, 97 + token_id % 26])


class FakeTokenizer(services.TokenizerServiceServicer):
    """Serves a chain of changes and lets a test add to it."""

    def __init__(self, base: Reference = BASE) -> None:
        self.base = self.newest = base
        self.changes: list[vocabulary_pb2.VocabularyChange] = []
        self.added = asyncio.Condition()
        self.concatenates = True
        self.num_entries = base.size

    def add(self, *contents: str) -> vocabulary_pb2.VocabularyChange:
        tokens = [
            vocabulary_pb2.NewToken(
                id=self.newest.size + index,
                token=vocabulary_pb2.AddedToken(content=content, special=True),
                initialization=vocabulary_pb2.ROW_INITIALIZATION_MEAN,
            )
            for index, content in enumerate(contents)
        ]
        change = vocabulary_pb2.VocabularyChange(
            parent_fingerprint=self.newest.fingerprint, tokens=tokens
        )
        self.newest = follow(self.newest, read_change(change).change)
        change.vocabulary.CopyFrom(vocabulary_ref(self.newest))
        self.changes.append(change)
        return change

    async def publish(self, *contents: str) -> None:
        async with self.added:
            self.add(*contents)
            self.added.notify_all()

    async def GetTokenizerInfo(self, request, context):
        return messages.GetTokenizerInfoResponse(
            vocabulary=vocabulary_ref(self.newest),
            base_size=self.base.size,
            token_bytes_concatenate=self.concatenates,
        )

    async def GetVocabulary(self, request, context):
        entries = [
            vocabulary_pb2.VocabularyEntry(id=token_id, token_bytes=spell(token_id))
            for token_id in range(self.num_entries)
        ]
        half = len(entries) // 2
        for part in (entries[:half], entries[half:]):
            yield messages.GetVocabularyResponse(entries=part)

    async def WatchVocabulary(self, request, context):
        sent = request.after_revision
        while True:
            for change in self.changes[sent:]:
                yield messages.WatchVocabularyResponse(change=change)
                sent += 1
            yield messages.WatchVocabularyResponse(heartbeat=vocabulary_ref(self.newest))
            async with self.added:
                await self.added.wait_for(lambda: len(self.changes) > sent)  # noqa: B023


async def finish_of(client, prompt: list[int], **config) -> Finish:
    """Runs one sequence and returns how it ended."""
    config = GenerationConfig(max_new_tokens=20, **config)
    async with client.stream(Generate([SequenceSpec(prompt, 0)], config, revision=0)) as call:
        async for events in call:
            for event in events:
                if event.finish is not None:
                    return event.finish
    raise AssertionError("the sequence did not end")


@asynccontextmanager
async def serving(tokenizer: FakeTokenizer, port: int = 0):
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    services.add_TokenizerServiceServicer_to_server(tokenizer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@asynccontextmanager
async def following(
    port: int, client, base: Reference | None = BASE, meanwhile: Reference | None = None
):
    table = VocabularyTable(followed=True, wait_s=0)
    state = Following(table)
    metrics = ModelMetrics(CollectorRegistry(), "tiny")
    address = TokenizerAddress(f"127.0.0.1:{port}")
    follower = Follower(address, base, client, metrics, state, lambda _: None, meanwhile)
    task = asyncio.create_task(follower.run())
    try:
        yield follower, table, state
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def revision(table: VocabularyTable, number: int) -> Reference:
    async with asyncio.timeout(10):
        while len(table) <= number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return table.at(number)


async def reached(state: Following, expected: str) -> None:
    async with asyncio.timeout(10):
        while state.state != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_revision_0_is_that_of_the_service():
    async with (
        engine() as client,
        serving(FakeTokenizer()) as port,
        following(port, client) as (follower, table, state),
    ):
        await asyncio.wait_for(follower.caught_up.wait(), 10)
        assert table.newest == BASE
        await reached(state, "following")
        assert (state.lag, state.reason) == (0, "")


async def test_changes_from_before_the_start_are_applied_before_serving():
    tokenizer = FakeTokenizer()
    tokenizer.add("<a>")
    tokenizer.add("<b>", "<c>")
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (follower, table, state),
    ):
        await asyncio.wait_for(follower.caught_up.wait(), 10)
        assert table.newest == tokenizer.newest
        assert table.newest.size == 35
        assert state.added_rows_sha256 == "ab" * 32
        assert state.reserved_rows == 15


async def test_a_change_made_while_running_is_applied():
    tokenizer = FakeTokenizer()
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (_, table, _),
    ):
        await revision(table, 0)
        await tokenizer.publish("<a>")
        assert await revision(table, 1) == tokenizer.newest


async def test_the_planned_end_of_a_connection_is_no_warning_and_the_loss_of_the_service_is():
    tokenizer = FakeTokenizer()
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_age_ms", 300),
            ("grpc.max_connection_age_grace_ms", 100),
        ]
    )
    services.add_TokenizerServiceServicer_to_server(tokenizer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def said(event: str, count: int) -> None:
        async with asyncio.timeout(20):
            while [line["event"] for line in log].count(event) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    with capture_logs() as log:
        async with engine() as client, following(port, client):
            await said("tokenizer_connection_ended", 2)
            await said("tokenizer_followed", 3)
            assert {line["log_level"] for line in log} == {"info"}
            await server.stop(0)
            await said("tokenizer_unreachable", 1)


@pytest.mark.parametrize("base", [BASE, None], ids=["with a tokenizer", "without"])
async def test_without_a_service_that_was_named_the_base_is_served_until_one_is_there(base):
    tokenizer = FakeTokenizer()
    tokenizer.add("<a>")
    meanwhile = base or Reference("tiny", 0, "", BASE.size)
    async with serving(FakeTokenizer()) as port:
        pass  # a port that is free now
    async with (
        engine() as client,
        following(port, client, base, meanwhile) as (follower, table, state),
    ):
        await asyncio.wait_for(follower.caught_up.wait(), 10)
        assert (table.newest, table.spelled, state.state) == (meanwhile, False, "disconnected")
        async with serving(tokenizer, port):
            assert await revision(table, 1) == tokenizer.newest
            await reached(state, "following")
        assert (table.at(0), table.spelled) == (BASE, True)


async def test_without_a_service_that_was_named_another_vocabulary_is_reported_and_not_taken():
    other = FakeTokenizer(Reference("other", 0, "cd" * 32, 32))
    async with (
        engine() as client,
        serving(other) as port,
        following(port, client, BASE, BASE) as (follower, table, state),
    ):
        await asyncio.wait_for(follower.caught_up.wait(), 10)
        assert (table.newest, state.state) == (BASE, "conflict")
        assert "start both with the same --model" in state.reason


async def test_a_service_that_comes_late_and_goes_away_is_followed_from_where_it_was():
    tokenizer = FakeTokenizer()
    async with serving(FakeTokenizer()) as port:
        pass  # a port that is free now
    async with engine() as client, following(port, client) as (follower, table, state):
        await asyncio.sleep(0.3)
        assert not follower.caught_up.is_set()
        tokenizer.add("<a>")
        async with serving(tokenizer, port):
            await asyncio.wait_for(follower.caught_up.wait(), 20)
        async with asyncio.timeout(10):
            while state.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        tokenizer.add("<b>")
        async with serving(tokenizer, port):
            assert await revision(table, 2) == tokenizer.newest
            assert len(table) == 3


async def test_the_engine_knows_the_bytes_of_every_id_before_one_is_served():
    tokenizer = FakeTokenizer()
    tokenizer.add("stop")
    tokenizer.num_entries = 33  # those of its newest revision
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (_, table, _),
    ):
        await revision(table, 1)
        assert table.spelled
        finish = await finish_of(client, [4], stop_strings=("gah",))  # ag, ah
        assert (finish.reason, finish.stop_string, finish.steps) == ("stop_string", "gah", 3)
        assert (await finish_of(client, [4, 30], stop_strings=("fsto",))).steps == 2  # bf, stop


async def test_a_tokenizer_whose_bytes_do_not_make_the_text_spells_nothing():
    tokenizer = FakeTokenizer()
    tokenizer.concatenates = False
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (follower, table, _),
    ):
        await asyncio.wait_for(follower.caught_up.wait(), 10)
        assert not table.spelled


async def test_a_vocabulary_that_is_not_handed_out_to_its_end_is_not_served():
    tokenizer = FakeTokenizer()
    tokenizer.num_entries = 31
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (_, table, _),
    ):
        await asyncio.sleep(0.5)
        assert len(table) == 0


async def test_another_vocabulary_is_never_served():
    other = Reference("tiny", 0, "cd" * 32, 32)
    async with (
        engine() as client,
        serving(FakeTokenizer(other)) as port,
        following(port, client) as (follower, table, state),
    ):
        await asyncio.sleep(0.5)
        assert not follower.caught_up.is_set()
        assert len(table) == 0
        assert not state.connected


async def test_another_vocabulary_is_found_out_by_its_changes_too():
    tokenizer = FakeTokenizer(Reference("tiny", 0, "cd" * 32, 32))
    tokenizer.add("<a>")
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (follower, table, _),
    ):
        await asyncio.sleep(0.5)
        assert not follower.caught_up.is_set()
        assert len(table) == 0


async def test_a_vocabulary_of_another_size_than_the_models_is_never_served():
    other = Reference("tiny", 0, BASE.fingerprint, 33)
    async with (
        engine() as client,
        serving(FakeTokenizer(other)) as port,
        following(port, client) as (follower, _, _),
    ):
        await asyncio.sleep(0.5)
        assert not follower.caught_up.is_set()


async def test_a_change_whose_fingerprint_is_wrong_is_not_applied():
    tokenizer = FakeTokenizer()
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (_, table, _),
    ):
        await revision(table, 0)
        change = tokenizer.add("<a>")
        change.tokens[0].generable = True
        await tokenizer.publish("<b>")
        await asyncio.sleep(0.5)
        assert table.newest == BASE
        assert client.info.vocabulary_size == 32


async def test_without_a_tokenizer_in_the_checkpoint_the_service_is_trusted():
    tokenizer = FakeTokenizer()
    tokenizer.add("<a>")
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client, base=None) as (_, table, _),
    ):
        assert await revision(table, 1) == tokenizer.newest
        assert table.at(0).fingerprint == BASE.fingerprint


@pytest.mark.parametrize("field", ["initialization", "role"])
async def test_a_change_with_a_value_unknown_here_is_not_applied(field):
    tokenizer = FakeTokenizer()
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (_, table, _),
    ):
        await revision(table, 0)
        change = tokenizer.add("<a>")
        if field == "initialization":
            change.tokens[0].initialization = 99
        else:
            change.special_tokens.add(role=99, token_id=32)
        await tokenizer.publish("<b>")
        await asyncio.sleep(0.3)
        assert table.newest == BASE


async def test_a_broken_chain_is_refused_reported_and_taken_when_it_is_whole_again():
    tokenizer = FakeTokenizer()
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (follower, table, state),
    ):
        await reached(state, "following")
        whole = tokenizer.add("<a>")
        broken = vocabulary_pb2.VocabularyChange()
        broken.CopyFrom(whole)
        broken.tokens[0].token.content = "<b>"
        tokenizer.changes[-1] = broken
        await tokenizer.publish("<c>")
        await reached(state, "conflict")
        assert "Revision 1 is not what it should be" in state.reason
        async with asyncio.timeout(10):
            while state.lag != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert state.state == "conflict"
        assert table.newest == BASE
        assert follower.caught_up.is_set()  # revision 0 goes on being served
        tokenizer.changes[0] = whole
        assert await revision(table, 2) == tokenizer.newest
        await reached(state, "following")


async def test_a_service_that_names_another_state_of_the_same_number_is_refused():
    tokenizer = FakeTokenizer()
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (_, table, state),
    ):
        await tokenizer.publish("<a>")
        ours = await revision(table, 1)
        async with tokenizer.added:  # restored from a backup, and grown in another way
            tokenizer.changes.clear()
            tokenizer.newest = tokenizer.base
            tokenizer.add("<other>")
            tokenizer.add("<more>")
            tokenizer.added.notify_all()
        await reached(state, "conflict")
        assert table.newest == ours


async def test_changes_that_have_gathered_reach_the_engine_together(monkeypatch):
    monkeypatch.setenv("COUNTING_STEP_S", "0.1")
    tokenizer = FakeTokenizer()
    async with (
        engine() as client,
        serving(tokenizer) as port,
        following(port, client) as (_, table, state),
    ):
        await reached(state, "following")
        async with client.stream(
            Generate([SequenceSpec([4], 0)], GenerationConfig(max_new_tokens=100), revision=0)
        ):
            async with tokenizer.added:
                for number in range(20):
                    tokenizer.add(f"<{number}>")
                started = time.monotonic()
                tokenizer.added.notify_all()
            assert await revision(table, 20) == tokenizer.newest
            assert time.monotonic() - started < 1.0  # not a step, 0.1 s, for each


async def paused(backoff: Backoff, hurry: asyncio.Event) -> float:
    started = time.monotonic()
    await backoff.pause(hurry)
    return time.monotonic() - started


async def test_a_request_that_waits_for_a_revision_ends_the_pause_before_the_next_attempt():
    # The shortest of five: during others the machine may have been busy.
    calm, hurry = asyncio.Event(), asyncio.Event()
    hurry.set()
    first = [await paused(Backoff(), calm) for _ in range(5)]
    assert 0.05 <= min(first) <= 0.15
    backoff = Backoff()
    pauses = [await paused(backoff, calm) for _ in range(5)]
    assert pauses[4] >= 0.45
    hurried = [await paused(backoff, hurry) for _ in range(5)]
    assert 0.05 <= min(hurried) <= 0.3
    anew = []
    for _ in range(5):
        backoff.reset()
        anew.append(await paused(backoff, calm))
    assert min(anew) <= 0.2


async def test_replicas_that_lost_the_same_service_do_not_come_back_together():
    async def arrival() -> float:
        backoff = Backoff()
        for _ in range(4):
            await backoff.pause(asyncio.Event())
        return time.monotonic()

    arrivals = sorted(await asyncio.gather(*(arrival() for _ in range(20))))
    assert arrivals[-1] - arrivals[0] > 0.1
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert max(gaps) < 0.6


class RefusingEngine:
    """Grows nothing, and says so after a while."""

    info = SimpleNamespace(vocabulary_size=32, default_config=GenerationConfig(max_new_tokens=1))

    def tell(self, command: SpellTokens) -> None:
        pass

    async def ask(self, request: GrowVocabulary) -> None:
        await asyncio.sleep(0.01)
        raise InvalidField("tokens", "do not fit")


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.03, 0.05, 0.1, 0.3])
async def test_a_follower_in_conflict_ends_when_it_is_told_to(after_s):
    tokenizer = FakeTokenizer()
    tokenizer.add("<a>")
    tokenizer.add("<b>")
    client = RefusingEngine()
    async with serving(tokenizer) as port:
        state = Following(VocabularyTable(followed=True, wait_s=0))
        metrics = ModelMetrics(CollectorRegistry(), "tiny")
        follower = Follower(
            TokenizerAddress(f"127.0.0.1:{port}"), BASE, client, metrics, state, lambda _: None
        )
        task = asyncio.create_task(follower.run())
        await reached(state, "conflict") if after_s else None
        await asyncio.sleep(after_s)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done
        assert task.cancelled()
