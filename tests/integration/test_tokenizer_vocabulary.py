import io
import itertools
import signal
import subprocess
import sys
import uuid
import zipfile

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import tensor_pb2, vocabulary_pb2
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import vocabulary_admin_service_pb2 as admin
from tokenizers import Tokenizer

from tests.integration.tokenizer_process import failure_of, running_tokenizer
from tests.services import ROOT
from tests.tokenizer_factory import make_tokenizer_folder
from vocabulary import (
    AddedToken,
    Change,
    Link,
    NewToken,
    Reference,
    SpecialToken,
    base_fingerprint,
    verify,
)

SOON = Duration(nanos=200_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tokenizer_folder(tmp_path_factory.mktemp("tokenizer") / "tiny")


@pytest.fixture
def stubs(folder, tmp_path):
    with running_tokenizer(folder, tmp_path) as running:
        yield running


def adding(*contents, **members):
    tokens = [
        admin.TokenToAdd(token=vocabulary_pb2.AddedToken(content=content, special=True))
        for content in contents
    ]
    key = members.pop("idempotency_key", str(uuid.uuid4()))
    return admin.AddTokensRequest(tokens=tokens, idempotency_key=key, **members)


def parsed_ids(stubs, text):
    request = pb.EncodeRequest(
        items=[pb.TextItem(text=text)], options=pb.EncodeOptions(parse_special_tokens=True)
    )
    response = stubs.tokenizer.Encode(request)
    return list(response.token_batch.sequences[0].ids), response.vocabulary


def test_an_added_token_is_encoded_at_once_and_ids_are_dense(stubs):
    response = stubs.admin.AddTokens(adding("<a>", "<b>"))
    assert [result.id for result in response.results] == [400, 401]
    assert (response.vocabulary.revision, response.vocabulary.size) == (1, 402)
    ids, vocabulary = parsed_ids(stubs, "<b><a>")
    assert ids == [401, 400]
    assert vocabulary == response.vocabulary
    assert stubs.admin.AddTokens(adding("<c>")).results[0].id == 402


def test_an_added_token_is_decoded_and_described(stubs):
    stubs.admin.AddTokens(adding("<é>"))
    entry = stubs.tokenizer.ConvertTokens(pb.ConvertTokensRequest(ids=[400])).entries[0]
    assert (entry.spelling, entry.token_bytes) == ("<é>", "<é>".encode())
    assert entry.type == vocabulary_pb2.TOKEN_TYPE_SPECIAL
    assert 400 in stubs.info().control_token_ids
    assert stubs.info().base_size == 400


def test_a_dry_run_reports_and_changes_nothing(stubs):
    request = adding("<a>", dry_run=True, idempotency_key="")
    response = stubs.admin.AddTokens(request)
    assert (response.results[0].id, response.vocabulary.revision) == (400, 1)
    assert response.results[0].previous_ids
    assert stubs.info().vocabulary.revision == 0


def test_a_dry_run_shows_what_texts_become(stubs):
    request = adding("<a>", dry_run=True, idempotency_key="ignored", allow_text_changes=True)
    plain = vocabulary_pb2.AddedToken(content="padde")
    request.tokens.append(admin.TokenToAdd(token=plain))
    request.texts.extend(["one <a>", "unpadded", "one"])
    response = stubs.admin.AddTokens(request)
    control, padde = response.results
    assert b"".join(control.previous_token_bytes) == b"<a>"
    assert list(control.effect.before.ids) == list(control.previous_ids)
    assert list(control.effect.after.ids) == [400]
    assert not control.effect.changes_text
    assert padde.effect.changes_text
    assert b" padded" in {entry.token_bytes for entry in padde.changed_entries}
    assert padde.num_changed_entries >= len(padde.changed_entries) > 0
    tagged, padded, one = response.text_effects
    assert (tagged.after.ids[-1], tagged.changes_text) == (400, False)
    assert (401 in padded.after.ids, padded.changes_text) == (True, True)
    assert b"".join(padded.after.token_bytes) == b"unpadded"
    assert one.before == one.after
    request.dry_run = False
    request.idempotency_key = str(uuid.uuid4())
    done = stubs.admin.AddTokens(request)
    assert [result.id for result in done.results] == [400, 401]
    assert not done.text_effects
    assert parsed_ids(stubs, "one <a>")[0] == list(tagged.after.ids)
    assert parsed_ids(stubs, "unpadded")[0] == list(padded.after.ids)


def test_a_token_gets_all_its_roles(stubs):
    request = adding("<end>")
    request.tokens[0].role = vocabulary_pb2.SPECIAL_TOKEN_ROLE_EOS
    request.tokens[0].more_roles.append(vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD)
    stubs.admin.AddTokens(request)
    roles = {one.role: one.token_id for one in stubs.info().special_tokens}
    assert roles[vocabulary_pb2.SPECIAL_TOKEN_ROLE_EOS] == 400
    assert roles[vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD] == 400


def test_a_repeated_key_returns_the_same_and_another_request_is_refused(stubs):
    key = str(uuid.uuid4())
    first = stubs.admin.AddTokens(adding("<a>", idempotency_key=key))
    stubs.admin.AddTokens(adding("<b>"))
    again = stubs.admin.AddTokens(adding("<a>", idempotency_key=key))
    assert again.SerializeToString() == first.SerializeToString()
    failure = failure_of(stubs.admin.AddTokens, adding("<c>", idempotency_key=key))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "IDEMPOTENCY_KEY_REUSED",
    )
    assert stubs.info().vocabulary.revision == 2


def test_a_change_of_an_older_revision_is_aborted(stubs):
    stubs.admin.AddTokens(adding("<a>", expected_revision=0))
    failure = failure_of(stubs.admin.AddTokens, adding("<b>", expected_revision=0))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "REVISION_CONFLICT")
    assert failure.metadata == {"expectedRevision": "0", "currentRevision": "1"}


def test_a_token_with_other_attributes_already_exists(stubs):
    request = adding("<|im_end|>")
    request.tokens[0].token.lstrip = True
    failure = failure_of(stubs.admin.AddTokens, request)
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TOKEN_EXISTS")


def values(*numbers):
    data = np.array(numbers, "<f4").tobytes()
    return tensor_pb2.Tensor(dtype=1, shape=[len(numbers)], data=data)


def one(**members):
    token = vocabulary_pb2.AddedToken(content="<x>", special=True)
    return admin.AddTokensRequest(
        tokens=[admin.TokenToAdd(token=token, **members)], idempotency_key=str(uuid.uuid4())
    )


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (adding(), "tokens"),
        (adding(*(f"<{index}>" for index in range(65))), "tokens"),
        (adding("<a>", idempotency_key=""), "idempotency_key"),
        (adding("<a>", idempotency_key="1234"), "idempotency_key"),
        (adding("<a>", expected_revision=-1), "expected_revision"),
        (adding("<a>", texts=["x"] * 65), "texts"),
        (adding("<a>", texts=["", "x" * 4097]), "texts[1]"),
        (one(more_roles=[0]), "tokens[0].more_roles[0]"),
        (one(more_roles=[3, 3]), "tokens[0].more_roles[1]"),
        (one(role=3, more_roles=[3]), "tokens[0].more_roles[0]"),
        (adding(""), "tokens[0].token.content"),
        (adding("a\0"), "tokens[0].token.content"),
        (one(role=99), "tokens[0].role"),
        (one(initialization=99), "tokens[0].initialization"),
        (one(initialization=3), "tokens[0].copy_token_id"),
        (one(copy_token_id=1), "tokens[0].copy_token_id"),
        (one(initialization=3, copy_token_id=400), "tokens[0].copy_token_id"),
        (one(initialization=5), "tokens[0].input_values"),
        (one(input_values=values(1.0)), "tokens[0].input_values"),
        (one(initialization=5, input_values=values(float("nan"))), "tokens[0].input_values.data"),
        (
            one(initialization=5, input_values=values(1.0), output_values=values(1.0, 2.0)),
            "tokens[0].output_values",
        ),
    ],
)
def test_a_bad_addition_is_refused_by_its_path(shared, request_message, field):
    failure = failure_of(shared.admin.AddTokens, request_message)
    assert failure.reason == "INVALID_FIELD"
    assert failure.bad_request.field_violations[0].field == field
    assert shared.info().vocabulary.revision == 0


def setting(*roles, **members):
    tokens = [vocabulary_pb2.SpecialToken(role=role, token_id=2) for role in roles]
    members = {"idempotency_key": str(uuid.uuid4())} | members
    return admin.SetSpecialTokensRequest(special_tokens=tokens, **members)


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (setting(), "special_tokens"),
        (setting(0), "special_tokens[0].role"),
        (setting(99), "special_tokens[0].role"),
        (setting(3, 3), "special_tokens[1].role"),
        (setting(3, idempotency_key=""), "idempotency_key"),
        (setting(3, expected_revision=-1), "expected_revision"),
    ],
)
def test_a_bad_assignment_is_refused_by_its_path(shared, request_message, field):
    failure = failure_of(shared.admin.SetSpecialTokens, request_message)
    assert failure.reason == "INVALID_FIELD"
    assert failure.bad_request.field_violations[0].field == field


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "-1"}, "page_token"),
        ({"page_token": "1"}, "page_token"),
    ],
)
def test_a_bad_page_is_refused_by_its_path(shared, members, field):
    failure = failure_of(shared.admin.ListRevisions, admin.ListRevisionsRequest(**members))
    assert failure.bad_request.field_violations[0].field == field


@pytest.fixture(scope="module")
def shared(folder, tmp_path_factory):
    """A service whose vocabulary no test changes."""
    with running_tokenizer(folder, tmp_path_factory.mktemp("service")) as running:
        yield running


def test_a_plain_token_of_ordinary_text_must_be_allowed(stubs):
    request = adding("Zanzibar")
    request.tokens[0].token.special = False
    failure = failure_of(stubs.admin.AddTokens, request)
    assert failure.bad_request.field_violations[0].field == "tokens[0].token.content"
    request.allow_text_changes = True
    assert stubs.admin.AddTokens(request).results[0].changes_text
    assert parsed_ids(stubs, "Zanzibar")[0] == [400]


def test_roles_are_assigned_as_a_revision(stubs):
    stubs.admin.AddTokens(adding("<pad>"))
    role = vocabulary_pb2.SpecialToken(role=vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD, token_id=400)
    request = admin.SetSpecialTokensRequest(
        special_tokens=[role], idempotency_key=str(uuid.uuid4())
    )
    assert stubs.admin.SetSpecialTokens(request).vocabulary.revision == 2
    assert stubs.info().pad_token_id == 400
    request.special_tokens[0].token_id = 300  # a piece of text
    request.idempotency_key = str(uuid.uuid4())
    failure = failure_of(stubs.admin.SetSpecialTokens, request)
    assert failure.bad_request.field_violations[0].field == "special_tokens[0].token_id"
    request.special_tokens[0].token_id = 401
    request.idempotency_key = str(uuid.uuid4())
    assert failure_of(stubs.admin.SetSpecialTokens, request).reason == "TOKEN_ID_OUT_OF_RANGE"


def test_revisions_are_listed_in_pages_and_verify(stubs):
    for content in ("<a>", "<b>", "<c>"):
        stubs.admin.AddTokens(adding(content))
    first = stubs.admin.ListRevisions(admin.ListRevisionsRequest(page_size=3))
    rest = stubs.admin.ListRevisions(
        admin.ListRevisionsRequest(page_size=3, page_token=first.next_page_token)
    )
    revisions = [*first.revisions, *rest.revisions]
    assert [one.vocabulary.revision for one in revisions] == [0, 1, 2, 3]
    assert [one.parent_fingerprint for one in revisions[1:]] == [
        one.vocabulary.fingerprint for one in revisions[:-1]
    ]
    assert rest.next_page_token == ""
    assert revisions[1].tokens[0].token.content == "<a>"
    verified = stubs.admin.VerifyRevisions(admin.VerifyRevisionsRequest())
    assert (verified.valid, verified.revision_count) == (True, 4)
    bad = admin.ListRevisionsRequest(page_token="x")
    assert failure_of(stubs.admin.ListRevisions, bad).reason == "INVALID_FIELD"


def test_a_watcher_receives_what_was_what_comes_and_heartbeats(stubs):
    stubs.admin.AddTokens(adding("<a>"))
    watch = stubs.tokenizer.WatchVocabulary(pb.WatchVocabularyRequest(heartbeat_interval=SOON))
    assert next(watch).change.tokens[0].token.content == "<a>"
    assert next(watch).heartbeat.revision == 1  # at once: everything is there
    stubs.admin.AddTokens(adding("<b>"))
    events = list(itertools.islice(watch, 3))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count("change") == 1
    change = next(event.change for event in events if event.WhichOneof("event") == "change")
    assert (change.vocabulary.revision, change.tokens[0].id) == (2, 401)
    assert events[-1].heartbeat.revision == 2
    watch.cancel()


def test_a_watcher_resumes_after_what_it_has(stubs):
    for content in ("<a>", "<b>"):
        stubs.admin.AddTokens(adding(content))
    watch = stubs.tokenizer.WatchVocabulary(pb.WatchVocabularyRequest(after_revision=1))
    assert next(watch).change.vocabulary.revision == 2
    watch.cancel()
    ahead = failure_of(stubs.tokenizer.WatchVocabulary, pb.WatchVocabularyRequest(after_revision=3))
    assert ahead.reason == "VOCABULARY_BEHIND"


def test_a_follower_can_verify_the_chain_from_the_files_of_the_model(stubs, folder):
    request = adding("<a>")
    request.tokens[0].initialization = vocabulary_pb2.ROW_INITIALIZATION_VALUES
    request.tokens[0].input_values.CopyFrom(values(0.5, -2.0))
    request.tokens[0].role = vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD
    stubs.admin.AddTokens(request)
    watch = stubs.tokenizer.WatchVocabulary(pb.WatchVocabularyRequest())
    change = next(watch).change
    watch.cancel()
    (token,) = change.tokens
    expected = Change(
        tokens=(
            NewToken(
                id=token.id,
                token=AddedToken(token.token.content, special=True),
                previous_ids=tuple(token.previous_ids),
                generable=True,
                initialization="values",
                input_values=token.input_values.data,
            ),
        ),
        special_tokens=(SpecialToken("pad", 400),),
    )
    base = Reference("tiny", 0, base_fingerprint((folder / "tokenizer.json").read_bytes()), 400)
    after = Reference("tiny", 1, change.vocabulary.fingerprint, 401)
    assert verify(base, [Link(change.parent_fingerprint, expected, after)]) == after


def test_the_end_of_the_service_ends_a_watcher_at_once(folder, tmp_path):
    with running_tokenizer(folder, tmp_path) as stubs:
        watch = stubs.tokenizer.WatchVocabulary(pb.WatchVocabularyRequest())
        next(watch)
        stubs.service.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stubs.service.process.wait(10) == 0


def test_ids_and_replies_survive_a_restart(folder, tmp_path):
    request = adding("<a>", "<b>")
    with running_tokenizer(folder, tmp_path) as stubs:
        first = stubs.admin.AddTokens(request)
        before = parsed_ids(stubs, "x <b> <a>")
    with running_tokenizer(folder, tmp_path) as stubs:
        assert parsed_ids(stubs, "x <b> <a>") == before
        again = stubs.admin.AddTokens(request)
        assert again.SerializeToString() == first.SerializeToString()
        assert stubs.info().vocabulary == first.vocabulary


def test_what_was_acknowledged_survives_a_kill(folder, tmp_path):
    for round_number in range(3):
        with running_tokenizer(folder, tmp_path) as stubs:
            response = stubs.admin.AddTokens(adding(f"<{round_number}>"))
            stubs.service.process.send_signal(signal.SIGKILL)
            stubs.service.process.wait()
        assert response.vocabulary.revision == round_number + 1
    with running_tokenizer(folder, tmp_path) as stubs:
        assert stubs.info().vocabulary == response.vocabulary
        assert parsed_ids(stubs, "<2><0>")[0] == [402, 400]


def test_the_files_of_a_grown_tokenizer_encode_as_the_service_does(stubs):
    stubs.admin.AddTokens(adding("<a>"))
    stubs.admin.AddTokens(adding("n", allow_text_changes=True))  # a piece that becomes special
    chunks = stubs.tokenizer.GetTokenizerArtifact(pb.GetTokenizerArtifactRequest())
    with zipfile.ZipFile(io.BytesIO(b"".join(chunk.data for chunk in chunks))) as files:
        local = Tokenizer.from_str(files.read("tokenizer.json").decode())
    assert local.encode("one <a> two").ids == parsed_ids(stubs, "one <a> two")[0]


def test_the_store_of_another_tokenizer_is_refused(folder, tmp_path):
    with running_tokenizer(folder, tmp_path) as stubs:
        stubs.admin.AddTokens(adding("<a>"))
    other = make_tokenizer_folder(tmp_path / "other", "unigram")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tokenizer_service", f"--model={other}", "--tokenizer-id=tiny"),
            *("--port=0", "--health-port=0", "--metrics-port=0", "--log-level=error"),
            f"--store=sqlite:///{tmp_path / 'vocabulary.sqlite'}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "belongs to another tokenizer" in done.stderr
    assert "Traceback" not in done.stderr
