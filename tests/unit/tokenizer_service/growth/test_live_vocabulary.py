import asyncio
import dataclasses
from contextlib import contextmanager

import pytest
import structlog
from prometheus_client import CollectorRegistry

from rpc.errors import (
    InvalidField,
    RevisionConflict,
    StoreUnavailable,
    VocabularyBehind,
    VocabularyMismatch,
)
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.growth.log_reader import find_broken
from tokenizer_service.growth.revision_writer import Outcome
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.store import Call, Store
from vocabulary import AddedToken, Change, NewToken


def call(key):
    return Call.of(key, b"request")


def adding(*contents):
    """Plans to add special tokens at whatever size there is."""

    def plan(tokenizer):
        tokens = tuple(
            NewToken(
                id=tokenizer.size + index,
                token=AddedToken(content, special=True),
                initialization="zero",
            )
            for index, content in enumerate(contents)
        )
        change = Change(tokens)
        after = tokenizer.grown(change) if tokens else tokenizer
        return Outcome(change, after, lambda ref: f"{ref.revision}:{ref.size}".encode())

    return plan


class Harness:
    """A live vocabulary on a store in memory, or in a file."""

    def __init__(self, base, url="sqlite://", **limits):
        self.registry = CollectorRegistry()
        self.metrics = TokenizerMetrics(self.registry, "tiny", base_size=base.reference.size)
        self.store = Store(url, base.reference, observe=self.metrics.store)
        self.live = LiveVocabulary(base, self.store, self.metrics, **limits)

    def gauge(self, name):
        return self.registry.get_sample_value(f"lockstep_tokenizer_{name}", {"tokenizer": "tiny"})

    def changes(self, result):
        labels = {"tokenizer": "tiny", "result": result}
        return self.registry.get_sample_value("lockstep_tokenizer_vocab_revisions_total", labels)


@pytest.fixture
async def harness(load):
    made = Harness(load("byte_level"))
    yield made
    await made.live.close()


async def test_an_acknowledged_change_serves(harness):
    before = harness.live.current
    assert await harness.live.change(call("a"), adding("<x>"), expected_revision=0) == b"1:401"
    assert harness.live.current.id_of("<x>") == 400
    assert before.id_of("<x>") is None
    assert (
        harness.registry.get_sample_value(
            "lockstep_tokenizer_vocab_revision", {"tokenizer": "tiny"}
        )
        == 1
    )


async def test_a_repeated_call_gets_the_same_bytes_and_changes_nothing(harness):
    first = await harness.live.change(call("a"), adding("<x>"), expected_revision=None)
    await harness.live.change(call("b"), adding("<y>"), expected_revision=None)
    assert await harness.live.change(call("a"), adding("<x>"), expected_revision=None) == first
    assert harness.live.current.reference.revision == 2


async def test_a_change_of_an_older_revision_conflicts(harness):
    await harness.live.change(call("a"), adding("<x>"), expected_revision=0)
    with pytest.raises(RevisionConflict):
        await harness.live.change(call("b"), adding("<y>"), expected_revision=0)
    assert harness.changes("conflict") == 1
    assert harness.live.current.reference.revision == 1


async def test_concurrent_changes_get_dense_ids_in_some_order(harness):
    contents = [f"<t{index}>" for index in range(20)]
    await asyncio.gather(
        *(harness.live.change(call(one), adding(one), expected_revision=None) for one in contents)
    )
    assert sorted(harness.live.current.id_of(one) for one in contents) == [*range(400, 420)]
    assert await find_broken(harness.live) is None


async def test_of_concurrent_changes_of_one_revision_one_wins(harness):
    results = await asyncio.gather(
        *(
            harness.live.change(call(str(index)), adding(f"<t{index}>"), expected_revision=0)
            for index in range(8)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, bytes) for result in results) == 1
    assert sum(isinstance(result, RevisionConflict) for result in results) == 7


async def test_a_caller_that_goes_away_does_not_stop_its_change(harness):
    task = asyncio.create_task(
        harness.live.change(call("a"), adding("<x>"), expected_revision=None)
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await harness.live.wait_beyond(0, 5.0)
    assert harness.live.current.id_of("<x>") == 400


async def test_a_preview_changes_nothing(harness):
    assert await harness.live.preview(adding("<x>"), expected_revision=0) == b"1:401"
    assert harness.live.current.reference.revision == 0
    with pytest.raises(RevisionConflict):
        await harness.live.preview(adding("<x>"), expected_revision=3)


async def test_a_failed_store_changes_nothing_and_a_later_call_succeeds(harness, monkeypatch):
    def fail(*_):
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(harness.store, "writing", fail)
        with pytest.raises(StoreUnavailable):
            await harness.live.change(call("a"), adding("<x>"), expected_revision=None)
    assert harness.live.current.reference.revision == 0
    assert harness.changes("rejected") == 1
    assert await harness.live.change(call("a"), adding("<x>"), expected_revision=0) == b"1:401"


async def test_a_change_whose_commit_seemed_to_fail_is_found_by_its_key(harness, monkeypatch):
    writing = harness.store.writing

    @contextmanager
    def commit_and_fail():
        monkeypatch.undo()
        with writing() as log:
            yield log
        raise StoreUnavailable

    monkeypatch.setattr(harness.store, "writing", commit_and_fail)
    assert await harness.live.change(call("a"), adding("<x>"), expected_revision=0) == b"1:401"
    assert harness.live.current.id_of("<x>") == 400
    assert len(harness.store.revisions()) == 1


async def test_a_refused_plan_is_counted_and_changes_nothing(harness):
    def refuse(_):
        raise InvalidField("tokens", "are bad")

    with pytest.raises(InvalidField):
        await harness.live.change(call("a"), refuse, expected_revision=None)
    assert harness.changes("rejected") == 1
    assert harness.live.history == []


async def test_watchers_wake_when_there_is_more(harness):
    waiting = asyncio.create_task(harness.live.wait_beyond(0, 5.0))
    await asyncio.sleep(0)
    await harness.live.change(call("a"), adding("<x>"), expected_revision=None)
    assert await waiting
    assert not await harness.live.wait_beyond(1, 0.01)


async def test_a_restart_serves_the_same_vocabulary(load, tmp_path):
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    first = Harness(load("byte_level"), url)
    await first.live.change(call("a"), adding("<x>", "<y>"), expected_revision=None)
    reference = first.live.current.reference
    await first.live.close()
    second = Harness(load("byte_level"), url)
    assert second.live.current.reference == reference
    assert second.live.current.id_of("<y>") == 401
    assert await second.live.change(call("a"), adding("<x>", "<y>"), expected_revision=None) == (
        b"1:402"
    )
    await second.live.close()


async def test_ids_are_checked_against_the_revision_that_a_request_names(harness):
    base = harness.live.current.reference
    await harness.live.change(call("a"), adding("<x>"), expected_revision=None)
    assert harness.live.size_for(None) == 401
    assert harness.live.size_for(base) == 400
    assert harness.live.size_for(harness.live.current.reference) == 401


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"revision": 1}, VocabularyBehind),
        ({"fingerprint": "f" * 64}, VocabularyMismatch),
        ({"tokenizer_id": "other", "fingerprint": ""}, VocabularyMismatch),
        ({"tokenizer_id": "other", "revision": 1}, VocabularyMismatch),
        ({"size": -1}, InvalidField),
        ({"size": 401}, InvalidField),
    ],
)
async def test_another_vocabulary_is_refused(harness, members, error):
    reference = dataclasses.replace(harness.live.current.reference, **members)
    with pytest.raises(error):
        harness.live.size_for(reference)


@pytest.mark.parametrize(
    "members",
    [{"fingerprint": ""}, {"fingerprint": "", "tokenizer_id": ""}, {"tokenizer_id": "other"}],
)
async def test_a_reference_means_what_it_means_to_the_model_service(harness, members):
    reference = dataclasses.replace(harness.live.current.reference, size=0, **members)
    assert harness.live.size_for(reference) == 400


async def test_a_revision_that_is_required_must_be_there(harness):
    assert harness.live.require(0) is harness.live.current
    with pytest.raises(VocabularyBehind):
        harness.live.require(1)


async def test_an_operator_is_warned_before_no_token_can_be_added_any_more(load):
    harness = Harness(load("byte_level"), max_added_tokens=20)
    with structlog.testing.capture_logs() as log:
        first = [f"<{index}>" for index in range(17)]
        await harness.live.change(call("a"), adding(*first), expected_revision=None)
        assert not log
        await harness.live.change(call("b"), adding("<last>"), expected_revision=None)
    await harness.live.close()
    (warning,) = log
    assert (warning["log_level"], warning["num_left"], warning["limit"]) == ("warning", 2, 20)
    assert "--max-added-tokens" in warning["remedy"]
    assert (harness.gauge("added_tokens"), harness.gauge("added_tokens_left")) == (18, 2)
