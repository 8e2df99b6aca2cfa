"""Two replicas of the tokenizer service on one PostgreSQL."""

import itertools
import time
import uuid
from contextlib import ExitStack

import pytest
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2, vocabulary_pb2
from lockstep.v1 import vocabulary_admin_service_pb2 as admin

from tests.integration.tokenizer_process import failure_of, running_tokenizer
from tests.postgresql import ESCAPED_PASSWORD, PASSWORD, running_postgresql
from tests.tokenizer_factory import make_tokenizer_folder


@pytest.fixture(scope="module")
def server():
    """A server that a test stops."""
    with running_postgresql() as running:
        yield running


@pytest.fixture(scope="module")
def replicas(server, tmp_path_factory):
    """Both replicas, whose vocabulary tests grow."""
    folder = make_tokenizer_folder(tmp_path_factory.mktemp("tokenizer") / "tiny")
    store = server.url(server.new_database())
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running_tokenizer(
                    folder,
                    tmp_path_factory.mktemp(f"replica{number}"),
                    "--store-poll-interval-s=0.2",
                    store=store,
                )
            )
            for number in range(2)
        ]


def adding(content):
    token = admin.TokenToAdd(token=vocabulary_pb2.AddedToken(content=content, special=True))
    return admin.AddTokensRequest(tokens=[token], idempotency_key=str(uuid.uuid4()))


def encode(replica, text, min_revision=None):
    request = pb.EncodeRequest(
        items=[pb.TextItem(text=text)],
        options=pb.EncodeOptions(parse_special_tokens=True),
        min_revision=min_revision,
    )
    return replica.tokenizer.Encode(request)


def ids_of(response):
    (sequence,) = response.token_batch.sequences
    return list(sequence.ids)


def test_what_one_replica_adds_the_other_encodes_when_it_is_named(replicas):
    for number in range(20):
        one, other = replicas if number % 2 else reversed(replicas)
        added = one.admin.AddTokens(adding(f"<named {number}>"))
        response = encode(other, f"<named {number}>", added.vocabulary.revision)
        assert ids_of(response) == [added.results[0].id]
        batch = tokens_pb2.PromptBatch(token_batch=response.token_batch)
        given = pb.DecodeRequest(batch=batch, vocabulary=added.vocabulary)
        assert one.tokenizer.Decode(given) == other.tokenizer.Decode(given)


def test_what_one_replica_marks_as_special_is_special_for_the_other(replicas):
    one, other = replicas
    request = adding("a")
    request.allow_text_changes = True
    added = one.admin.AddTokens(request)
    (result,) = added.results
    assert result.becomes_special
    assert ids_of(encode(other, "cab", added.vocabulary.revision))[1] == result.id
    entry = admin.AddTokensRequest(tokens=request.tokens, dry_run=True)
    (seen,) = other.admin.AddTokens(entry).results
    assert seen.existing
    assert not seen.becomes_special


def test_a_watcher_of_one_replica_receives_what_the_other_adds(replicas):
    one, other = replicas
    newest = one.info().vocabulary.revision
    watch = other.tokenizer.WatchVocabulary(
        pb.WatchVocabularyRequest(after_revision=newest, heartbeat_interval=Duration(seconds=5))
    )
    added = one.admin.AddTokens(adding("<watched>"))
    change = next(event.change for event in watch if event.WhichOneof("event") == "change")
    watch.cancel()
    assert change.vocabulary == added.vocabulary
    # A follower that comes over from the replica that is ahead is not sent away.
    added = one.admin.AddTokens(adding("<ahead>"))
    watch = other.tokenizer.WatchVocabulary(
        pb.WatchVocabularyRequest(after_revision=added.vocabulary.revision)
    )
    assert next(watch).heartbeat == added.vocabulary
    watch.cancel()


def test_a_repeated_call_gets_the_same_bytes_from_both(replicas):
    request = adding("<repeated>")
    pending = [replica.admin.AddTokens.future(request) for replica in replicas * 4]
    assert len({one.result().SerializeToString() for one in pending}) == 1
    assert len({replica.admin.AddTokens(request).SerializeToString() for replica in replicas}) == 1


def test_a_revision_that_nobody_wrote_is_not_waited_for_long(replicas):
    start = time.monotonic()
    failure = failure_of(lambda: encode(replicas[0], "x", 10**6))
    assert time.monotonic() - start < 5
    assert (failure.reason, failure.code.name) == ("VOCABULARY_BEHIND", "UNAVAILABLE")
    assert failure.retry is not None


def test_without_its_database_a_replica_encodes_and_changes_nothing(replicas, server):
    one, other = replicas
    added = one.admin.AddTokens(adding("<before>"))
    assert encode(other, "<before>", added.vocabulary.revision)
    request = adding("<during>")
    server.stop()
    try:
        for replica in replicas:
            assert ids_of(encode(replica, "<before>")) == [added.results[0].id]
            failure = failure_of(replica.admin.AddTokens, request)
            assert (failure.reason, failure.code.name) == ("STORE_UNAVAILABLE", "UNAVAILABLE")
            assert failure.retry is not None
        ahead = failure_of(lambda: encode(other, "x", added.vocabulary.revision + 1))
        assert ahead.reason == "VOCABULARY_BEHIND"
    finally:
        server.start()
    during = one.admin.AddTokens(request)
    assert during.vocabulary.revision == added.vocabulary.revision + 1
    # The other one listens again, too.
    watch = other.tokenizer.WatchVocabulary(
        pb.WatchVocabularyRequest(after_revision=added.vocabulary.revision)
    )
    events = itertools.islice(watch, 10)
    change = next(event.change for event in events if event.WhichOneof("event") == "change")
    watch.cancel()
    assert change.vocabulary == during.vocabulary
    log = one.service.log.read_text()
    assert "store_unavailable" in log
    assert PASSWORD not in log
    assert ESCAPED_PASSWORD not in log
