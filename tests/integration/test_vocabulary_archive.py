import itertools
import shutil
import uuid

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import tensor_pb2, vocabulary_pb2
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import vocabulary_admin_service_pb2 as admin

from tests.integration.tokenizer_process import failure_of, running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tokenizer_folder(tmp_path_factory.mktemp("tokenizer") / "tiny")


@pytest.fixture
def stubs(folder, tmp_path):
    with running_tokenizer(folder, tmp_path / "one") as running:
        yield running


@pytest.fixture
def others(folder, tmp_path):
    with running_tokenizer(folder, tmp_path / "two") as running:
        yield running


def adding(*contents, size=0):
    """Adds tokens, with trained vectors of a size if there is one."""
    tokens = []
    for content in contents:
        token = vocabulary_pb2.AddedToken(content=content, special=True)
        tokens.append(admin.TokenToAdd(token=token))
        if size:
            data = np.random.default_rng(0).standard_normal(size, "float32").tobytes()
            tokens[-1].initialization = vocabulary_pb2.ROW_INITIALIZATION_VALUES
            tokens[-1].input_values.CopyFrom(
                tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[size], data=data)
            )
    return admin.AddTokensRequest(tokens=tokens, idempotency_key=str(uuid.uuid4()))


def exported(stubs):
    responses = list(stubs.admin.ExportRevisions(admin.ExportRevisionsRequest()))
    assert all(len(response.data) <= 2**20 for response in responses)
    return b"".join(response.data for response in responses)


def import_into(stubs, archive, piece=100_000):
    pieces = (archive[start : start + piece] for start in range(0, len(archive), piece))
    return stubs.admin.ImportRevisions(admin.ImportRevisionsRequest(data=data) for data in pieces)


def watched(stubs, count, **members):
    watch = stubs.tokenizer.WatchVocabulary(pb.WatchVocabularyRequest(**members))
    events = (event for event in watch if event.WhichOneof("event") == "change")
    changes = [event.change for event in itertools.islice(events, count)]
    watch.cancel()
    return changes


def test_a_restored_log_has_the_same_revisions_vectors_times_and_replies(stubs, others):
    requests = [adding("<a>", "<b>"), adding("<v>", "<w>", "<x>", "<y>", size=65536), adding("<a>")]
    replies = [stubs.admin.AddTokens(request) for request in requests]
    archive = exported(stubs)
    assert len(archive) > 2**20  # more than one message
    response = import_into(others, archive)
    assert response.vocabulary == stubs.info().vocabulary == others.info().vocabulary
    assert (response.num_revisions, response.num_imported_revisions) == (2, 2)
    assert response.num_imported_replies == 3
    assert watched(others, 2) == watched(stubs, 2)
    for request, reply in zip(requests, replies, strict=True):
        assert others.admin.AddTokens(request) == reply
    assert exported(others) == archive
    assert others.admin.VerifyRevisions(admin.VerifyRevisionsRequest()).valid


def test_an_imported_token_is_encoded_at_once_and_after_a_restart(stubs, folder, tmp_path):
    stubs.admin.AddTokens(adding("<a>", "<b>"))
    request = pb.EncodeRequest(
        items=[pb.TextItem(text="x <b><a>")], options=pb.EncodeOptions(parse_special_tokens=True)
    )
    expected = stubs.tokenizer.Encode(request)
    with running_tokenizer(folder, tmp_path / "two") as others:
        import_into(others, exported(stubs))
        assert others.tokenizer.Encode(request) == expected
    with running_tokenizer(folder, tmp_path / "two") as others:
        assert others.tokenizer.Encode(request) == expected


def test_tokens_that_became_special_are_so_after_an_import_and_after_a_restart(
    stubs, folder, tmp_path
):
    stubs.admin.AddTokens(adding("<a>"))
    request = adding("a", "b")
    request.allow_text_changes = True
    response = stubs.admin.AddTokens(request)
    assert [one.becomes_special for one in response.results] == [True, True]
    assert response.vocabulary.size == 401
    request = pb.EncodeRequest(
        items=[pb.TextItem(text="a cab <a>")], options=pb.EncodeOptions(parse_special_tokens=True)
    )
    expected = stubs.tokenizer.Encode(request)
    special = set(stubs.info().control_token_ids)
    assert {one.id for one in response.results} <= special
    revisions = stubs.admin.ListRevisions(admin.ListRevisionsRequest()).revisions
    assert [one.token.content for one in revisions[2].marked_tokens] == ["a", "b"]
    with running_tokenizer(folder, tmp_path / "two") as others:
        import_into(others, exported(stubs))
        assert others.tokenizer.Encode(request) == expected
    with running_tokenizer(folder, tmp_path / "two") as others:
        assert others.tokenizer.Encode(request) == expected
        assert set(others.info().control_token_ids) == special
        assert others.admin.VerifyRevisions(admin.VerifyRevisionsRequest()).valid


def test_importing_again_changes_nothing_and_a_longer_archive_continues(stubs, others):
    stubs.admin.AddTokens(adding("<a>"))
    first = exported(stubs)
    import_into(others, first)
    again = import_into(others, first)
    assert (again.num_imported_revisions, again.num_imported_replies) == (0, 0)
    stubs.admin.AddTokens(adding("<b>"))
    second = exported(stubs)
    assert import_into(others, second).num_imported_revisions == 1
    late = import_into(others, first)  # a repetition that comes after everything else
    assert (late.num_revisions, late.num_imported_revisions) == (1, 0)
    assert late.vocabulary.revision == 2


def test_a_watcher_sees_every_imported_revision(stubs, others):
    for content in ("<a>", "<b>", "<c>"):
        stubs.admin.AddTokens(adding(content))
    watch = others.tokenizer.WatchVocabulary(
        pb.WatchVocabularyRequest(heartbeat_interval=Duration(nanos=100_000_000))
    )
    assert next(watch).heartbeat.revision == 0
    import_into(others, exported(stubs))
    changes = (event.change for event in watch if event.WhichOneof("event") == "change")
    assert [change.vocabulary.revision for change in itertools.islice(changes, 3)] == [1, 2, 3]
    watch.cancel()


def test_a_log_that_went_on_in_another_way_is_refused_with_both_references(stubs, others):
    stubs.admin.AddTokens(adding("<a>"))
    import_into(others, exported(stubs))
    mine = stubs.admin.AddTokens(adding("<b>")).vocabulary
    theirs = others.admin.AddTokens(adding("<c>")).vocabulary
    failure = failure_of(import_into, others, exported(stubs))
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "VOCABULARY_MISMATCH"
    assert failure.metadata["requestFingerprint"] == mine.fingerprint
    assert failure.metadata["serverFingerprint"] == theirs.fingerprint
    assert others.info().vocabulary == theirs


@pytest.mark.parametrize("damage", ["cut", "byte", "empty"])
def test_a_damaged_archive_changes_nothing(stubs, others, damage):
    stubs.admin.AddTokens(adding("<a>"))
    archive = exported(stubs)
    wrong = {"cut": archive[:-20], "byte": archive.replace(b"<a>", b"<b>", 1), "empty": b""}
    failure = failure_of(import_into, others, wrong[damage])
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert failure.bad_request.field_violations[0].field == "data"
    assert others.info().vocabulary.revision == 0


def test_vectors_that_the_model_here_could_not_take_are_refused(stubs, folder, tmp_path):
    stubs.admin.AddTokens(adding("<a>", size=8))
    narrower = shutil.copytree(folder, tmp_path / "tiny")  # the same tokenizer, another model
    (narrower / "config.json").write_text('{"hidden_size": 4}')
    with running_tokenizer(narrower, tmp_path / "two") as others:
        failure = failure_of(import_into, others, exported(stubs))
        assert failure.bad_request.field_violations[0].field == "data"
        assert "must be [4]" in failure.bad_request.field_violations[0].description
        assert others.info().vocabulary.revision == 0


def test_an_archive_with_more_tokens_than_the_limit_is_refused(stubs, folder, tmp_path):
    stubs.admin.AddTokens(adding("<a>", "<b>"))
    with running_tokenizer(folder, tmp_path / "two", "--max-added-tokens=1") as others:
        failure = failure_of(import_into, others, exported(stubs))
        assert failure.bad_request.field_violations[0].field == "data"
        assert others.info().vocabulary.revision == 0
