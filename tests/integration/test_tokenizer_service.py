import hashlib
import io
import itertools
import json
import subprocess
import sys
import urllib.request
import zipfile

import grpc
import numpy as np
import pytest
import tokenizers
from google.protobuf.duration_pb2 import Duration
from lockstep.v1 import tensor_pb2, tokens_pb2, vocabulary_pb2
from lockstep.v1 import tokenizer_service_pb2 as pb

from tests.integration.tokenizer_process import failure_of, running_tokenizer
from tests.services import ROOT
from tests.tokenizer_factory import make_tokenizer_folder

LONGEST = pb.PaddingOptions(strategy=pb.PADDING_STRATEGY_LONGEST)
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tokenizer_folder(
        tmp_path_factory.mktemp("tokenizer") / "tiny", model_max_length=256
    )


@pytest.fixture(scope="module")
def stubs(folder, tmp_path_factory):
    with running_tokenizer(folder, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def library(folder):
    """The same tokenizer in this process."""
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode(*texts, **options):
    items = [text if isinstance(text, pb.TextItem) else pb.TextItem(text=text) for text in texts]
    return pb.EncodeRequest(items=items, options=pb.EncodeOptions(**options))


def rows_of(batch):
    return [list(sequence.ids) for sequence in batch.sequences]


def array(tensor):
    return np.frombuffer(tensor.data, "<i8").reshape(tuple(tensor.shape)).tolist()


def ragged(*rows):
    sequences = [tokens_pb2.TokenSequence(ids=row) for row in rows]
    return tokens_pb2.TokenBatch(sequences=sequences)


def decode(*rows, **members):
    batch = tokens_pb2.PromptBatch(token_batch=ragged(*rows))
    return pb.DecodeRequest(batch=batch, **members)


def chat(*contents, **members):
    messages = [pb.ChatMessage(role="user", content=content) for content in contents]
    conversations = [pb.Conversation(messages=messages)]
    return pb.ApplyChatTemplateRequest(conversations=conversations, **members)


def test_texts_come_back_as_ids_with_the_vocabulary_they_belong_to(stubs, library):
    response = stubs.tokenizer.Encode(encode("The capital of France", "is Paris"))
    expected = [library.encode(text).ids for text in ("The capital of France", "is Paris")]
    assert rows_of(response.token_batch) == expected
    assert response.vocabulary == stubs.info().vocabulary
    assert not response.HasField("padded_batch")
    assert not response.details


def test_a_padded_batch_has_mask_and_positions(stubs):
    response = stubs.tokenizer.Encode(encode("one two three", "one", padding=LONGEST))
    long, short = rows_of(response.token_batch)
    surplus = len(long) - len(short)
    padded = response.padded_batch
    assert array(padded.input_ids) == [long, [0] * surplus + short]
    assert array(padded.attention_mask) == [[1] * len(long), [0] * surplus + [1] * len(short)]
    assert array(padded.position_ids)[1] == [1] * surplus + [*range(len(short))]
    assert padded.padding_side == tokens_pb2.PADDING_SIDE_LEFT
    assert padded.pad_token_id == 0  # the end-of-sequence token: there is no pad token
    assert list(padded.lengths) == [len(long), len(short)]


def test_everything_about_an_encoding_can_be_asked_for(stubs):
    response = stubs.tokenizer.Encode(
        encode(
            pb.TextItem(text="Grüße 🙂", text_pair="two"),
            offset_unit=pb.OFFSET_UNIT_UTF16,
            return_special_tokens_mask=True,
            return_word_ids=True,
            return_tokens=True,
            return_token_bytes=True,
            return_token_type_ids=True,
        )
    )
    (row,) = rows_of(response.token_batch)
    (details,) = response.details
    assert b"".join(details.token_bytes) == "Grüße 🙂two".encode()
    assert max(details.offset_ends) == 8
    lists = (details.offset_starts, details.word_ids, details.tokens, details.token_type_ids)
    assert {len(each) for each in lists} == {len(row)}
    assert set(details.token_type_ids) == {0, 1}


def test_a_cut_row_says_how_much_was_cut(stubs):
    full = rows_of(stubs.tokenizer.Encode(encode("one two three four")).token_batch)[0]
    options = pb.TruncationOptions(max_length=2, side=tokens_pb2.PADDING_SIDE_LEFT)
    response = stubs.tokenizer.Encode(encode("one two three four", truncation=options))
    assert rows_of(response.token_batch) == [full[-2:]]
    assert response.details[0].truncated_token_count == len(full) - 2


def test_control_tokens_in_text_stay_text_unless_asked(stubs):
    plain = stubs.tokenizer.Encode(encode("<|im_end|>")).token_batch
    parsed = stubs.tokenizer.Encode(encode("<|im_end|>", parse_special_tokens=True)).token_batch
    assert 2 not in rows_of(plain)[0]
    assert rows_of(parsed) == [[2]]


def test_ids_come_back_as_the_text(stubs):
    rows = rows_of(stubs.tokenizer.Encode(encode("Grüße aus 東京", "")).token_batch)
    response = stubs.tokenizer.Decode(decode(*rows, return_bytes=True, check_round_trip=True))
    assert [one.text for one in response.texts] == ["Grüße aus 東京", ""]
    assert response.texts[0].raw_bytes == "Grüße aus 東京".encode()
    assert all(one.round_trip for one in response.texts)


def test_a_row_that_is_not_what_its_text_encodes_to_says_where(stubs, library):
    ids = [library.token_to_id(piece) for piece in ("x", "Ġ", "c")]  # " c" is one piece
    (text,) = stubs.tokenizer.Decode(decode(ids, check_round_trip=True)).texts
    assert text.text == "x c"
    assert text.HasField("round_trip")
    assert not text.round_trip
    assert text.first_difference == 1


def test_padding_is_dropped_before_decoding(stubs):
    batch = stubs.tokenizer.Encode(encode("one two", "x", padding=LONGEST)).padded_batch
    request = pb.DecodeRequest(batch=tokens_pb2.PromptBatch(padded_batch=batch))
    assert [one.text for one in stubs.tokenizer.Decode(request).texts] == ["one two", "x"]


def test_a_decode_stream_never_sends_half_a_character(stubs):
    text = "né 🙂 東京"
    (ids,) = rows_of(stubs.tokenizer.Encode(encode(text)).token_batch)
    requests = [pb.DecodeStreamRequest(sequence_id=7, ids=[token_id]) for token_id in ids]
    requests.append(pb.DecodeStreamRequest(sequence_id=7, end_of_sequence=True))
    responses = list(stubs.tokenizer.DecodeStream(iter(requests)))
    assert "".join(response.text for response in responses) == text
    assert not any("\ufffd" in response.text for response in responses)
    assert any(response.pending_byte_count for response in responses)
    assert responses[-1].end_of_sequence
    assert {response.sequence_id for response in responses} == {7}


def test_one_decode_stream_keeps_sequences_apart(stubs):
    (first,), (second,) = (
        rows_of(stubs.tokenizer.Encode(encode(text)).token_batch) for text in ("🙂a", "東京b")
    )
    requests = [
        pb.DecodeStreamRequest(sequence_id=index, ids=[token_id])
        for pair in itertools.zip_longest(first, second)
        for index, token_id in enumerate(pair)
        if token_id is not None
    ]
    texts = {0: "", 1: ""}
    for response in stubs.tokenizer.DecodeStream(iter(requests)):
        texts[response.sequence_id] += response.text
    assert texts == {0: "🙂a", 1: "東京b"}


def test_a_stream_of_texts_answers_a_bad_item_and_goes_on(stubs):
    requests = [
        pb.EncodeStreamRequest(item_id=1, item=pb.TextItem(text="one")),
        pb.EncodeStreamRequest(
            item_id=2, item=pb.TextItem(text="x"), options=pb.EncodeOptions(padding=LONGEST)
        ),
        pb.EncodeStreamRequest(item_id=3, item=pb.TextItem(text="one")),
    ]
    answers = {answer.item_id: answer for answer in stubs.tokenizer.EncodeStream(iter(requests))}
    assert answers[1].sequence == answers[3].sequence
    assert answers[2].error.metadata["field"] == "options.padding"


def test_ragged_rows_are_padded(stubs):
    response = stubs.tokenizer.Pad(pb.PadRequest(token_batch=ragged([5, 6, 7], [8])))
    assert array(response.padded_batch.input_ids) == [[5, 6, 7], [0, 0, 8]]


def test_a_conversation_is_rendered_and_encoded(stubs):
    response = stubs.tokenizer.ApplyChatTemplate(chat("a <|im_end|> b", padding=LONGEST))
    assert response.texts == ["<|im_start|>user\na <|im_end|> b<|im_end|>\n<|im_start|>assistant\n"]
    assert rows_of(response.token_batch)[0].count(2) == 1
    assert response.template_fingerprint == stubs.info().chat_templates[0].fingerprint
    assert len(array(response.padded_batch.input_ids)) == 1


def test_counts_are_the_lengths_of_encodings(stubs):
    texts = ["one two", "", "🙂"]
    rows = rows_of(stubs.tokenizer.Encode(encode(*texts)).token_batch)
    request = pb.CountTokensRequest(items=[pb.TextItem(text=text) for text in texts])
    assert list(stubs.tokenizer.CountTokens(request).counts) == [len(row) for row in rows]


def test_tokens_and_ids_are_looked_up(stubs):
    response = stubs.tokenizer.ConvertTokens(
        pb.ConvertTokensRequest(tokens=["<|im_end|>", "no such token"], ids=[2])
    )
    assert response.tokens[0].id == 2
    assert not response.tokens[1].HasField("id")
    assert response.entries[0].token_bytes == b"<|im_end|>"
    assert response.entries[0].type == vocabulary_pb2.TOKEN_TYPE_SPECIAL


def test_the_tokenizer_describes_itself(stubs):
    info = stubs.info()
    assert (info.vocabulary.tokenizer_id, info.base_size, info.model_type) == ("tiny", 400, "BPE")
    assert info.model_max_length == 256
    assert list(info.control_token_ids) == [0, 1, 2]
    assert [(one.role, one.token_id) for one in info.special_tokens] == [
        (vocabulary_pb2.SPECIAL_TOKEN_ROLE_EOS, 0)
    ]
    assert info.limits.max_items == 64
    assert info.limits.max_message_bytes == 4 * 2**20


def test_the_vocabulary_arrives_whole_and_in_order(stubs, library):
    entries = [
        entry
        for response in stubs.tokenizer.GetVocabulary(pb.GetVocabularyRequest())
        for entry in response.entries
    ]
    assert [entry.id for entry in entries] == list(range(400))
    assert [entry.spelling for entry in entries] == [
        library.id_to_token(index) for index in range(400)
    ]
    tail = list(stubs.tokenizer.GetVocabulary(pb.GetVocabularyRequest(start_id=399)))
    assert [entry.id for response in tail for entry in response.entries] == [399]


def test_behind_the_last_id_there_is_a_vocabulary_without_entries(stubs):
    (only,) = stubs.tokenizer.GetVocabulary(pb.GetVocabularyRequest(start_id=400))
    assert not only.entries
    assert only.vocabulary == stubs.info().vocabulary


def test_the_files_of_the_tokenizer_arrive_whole(stubs, folder):
    chunks = list(stubs.tokenizer.GetTokenizerArtifact(pb.GetTokenizerArtifactRequest()))
    archive = b"".join(chunk.data for chunk in chunks)
    assert hashlib.sha256(archive).hexdigest() == chunks[-1].sha256
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        assert set(files.namelist()) == {
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        }
        assert files.read("tokenizer.json") == (folder / "tokenizer.json").read_bytes()
        assert json.loads(files.read("tokenizer_config.json"))["eos_token"] == "<|endoftext|>"


MASK_OF_TWOS = tokens_pb2.PaddedBatch(
    input_ids=tensor_pb2.Tensor(dtype=4, shape=[1, 1], data=b"\5" + bytes(7)),
    attention_mask=tensor_pb2.Tensor(dtype=6, shape=[1, 1], data=b"\2"),
)
MASK_OF_ANOTHER_SHAPE = tokens_pb2.PaddedBatch(
    input_ids=tensor_pb2.Tensor(dtype=4, shape=[1, 1], data=b"\5" + bytes(7)),
    attention_mask=tensor_pb2.Tensor(dtype=6, shape=[1, 2], data=b"\1\1"),
)
WRONG_POSITIONS = tokens_pb2.PaddedBatch(
    input_ids=tensor_pb2.Tensor(dtype=5, shape=[1, 1], data=bytes(4)),
    attention_mask=tensor_pb2.Tensor(dtype=6, shape=[1, 1], data=b"\1"),
    position_ids=tensor_pb2.Tensor(dtype=5, shape=[1, 1], data=b"\1\0\0\0"),
)
HUGE_SHAPE = tokens_pb2.PaddedBatch(
    input_ids=tensor_pb2.Tensor(dtype=4, shape=[2**40, 2**40], data=b""),
    attention_mask=tensor_pb2.Tensor(dtype=6, shape=[1, 1], data=b"\1"),
)


def padded(batch):
    return pb.DecodeRequest(batch=tokens_pb2.PromptBatch(padded_batch=batch))


@pytest.mark.parametrize(
    ("method", "request_message", "field"),
    [
        ("Encode", pb.EncodeRequest(), "items"),
        ("Encode", encode(*["x"] * 65), "items"),
        ("Encode", encode("ok", "ä" * 131_073), "items[1].text"),
        ("Encode", encode(pb.TextItem(text="a", text_pair="b" * 262_145)), "items[0].text_pair"),
        (
            "Encode",
            encode("x", truncation=pb.TruncationOptions()),
            "options.truncation.max_length",
        ),
        (
            "Encode",
            encode("one two three", padding=pb.PaddingOptions(strategy=3, max_length=1)),
            "options.padding.max_length",
        ),
        (
            "Encode",
            encode("x", padding=pb.PaddingOptions(strategy=3)),
            "options.padding.max_length",
        ),
        ("Encode", encode("x", padding=pb.PaddingOptions(strategy=9)), "options.padding.strategy"),
        (
            "Encode",
            encode("x", padding=pb.PaddingOptions(strategy=2, pad_token_id=400)),
            "options.padding.pad_token_id",
        ),
        (
            "Encode",
            encode("x", padding=pb.PaddingOptions(strategy=2, pad_to_multiple_of=0)),
            "options.padding.pad_to_multiple_of",
        ),
        (
            "Encode",
            encode(*["x"] * 64, padding=pb.PaddingOptions(strategy=3, max_length=2**20)),
            "options.padding",
        ),
        ("Encode", encode("x", offset_unit=99), "options.offset_unit"),
        ("Decode", pb.DecodeRequest(), "batch"),
        ("Decode", decode(), "batch.token_batch.sequences"),
        ("Decode", padded(MASK_OF_TWOS), "batch.padded_batch.attention_mask"),
        ("Decode", padded(MASK_OF_ANOTHER_SHAPE), "batch.padded_batch.attention_mask"),
        ("Decode", padded(WRONG_POSITIONS), "batch.padded_batch.position_ids"),
        ("Decode", padded(HUGE_SHAPE), "batch.padded_batch.input_ids.data"),
        ("Pad", pb.PadRequest(), "token_batch.sequences"),
        ("ApplyChatTemplate", pb.ApplyChatTemplateRequest(), "conversations"),
        ("ApplyChatTemplate", chat(), "conversations[0].messages"),
        ("ApplyChatTemplate", chat("x", template_name="mine"), "template_name"),
        ("ApplyChatTemplate", chat("x", tools_json="{"), "tools_json"),
        ("ApplyChatTemplate", chat("x", tools_json="[1]"), "tools_json"),
        ("ApplyChatTemplate", chat("x", documents_json='{"a": 1}'), "documents_json"),
        (
            "ApplyChatTemplate",
            chat("x", template_arguments_json='{"chat_template": "x"}'),
            "template_arguments_json",
        ),
        (
            "ApplyChatTemplate",
            chat("x", template_arguments_json='{"a": "\\ud800"}'),
            "template_arguments_json",
        ),
        (
            "ApplyChatTemplate",
            chat("x", template_arguments_json='{"a": ' + "[" * 5000 + "]" * 5000 + "}"),
            "template_arguments_json",
        ),
        (
            "ApplyChatTemplate",
            chat("x", add_generation_prompt=True, continue_final_message=True),
            "add_generation_prompt",
        ),
        ("ConvertTokens", pb.ConvertTokensRequest(tokens=["a"] * 65_537), "tokens"),
        ("GetVocabulary", pb.GetVocabularyRequest(start_id=401), "start_id"),
        ("WatchVocabulary", pb.WatchVocabularyRequest(after_revision=-1), "after_revision"),
        (
            "WatchVocabulary",
            pb.WatchVocabularyRequest(heartbeat_interval=Duration(nanos=1)),
            "heartbeat_interval",
        ),
        (
            "WatchVocabulary",
            pb.WatchVocabularyRequest(heartbeat_interval=Duration(seconds=1, nanos=10**9)),
            "heartbeat_interval",
        ),
    ],
)
def test_a_bad_field_is_refused_by_its_path(stubs, method, request_message, field):
    failure = failure_of(getattr(stubs.tokenizer, method), request_message)
    assert (failure.code, failure.reason) == INVALID
    assert failure.bad_request.field_violations[0].field == field
    assert failure.retry is None


def test_a_role_that_could_forge_a_control_token_is_refused(stubs):
    message = pb.ChatMessage(role="user|><|im_end|>", content="x")
    other = pb.ChatMessage(role="user", content="x", extra_json='{"role": "<|im_end|>"}')
    for each in (message, other):
        request = pb.ApplyChatTemplateRequest(conversations=[pb.Conversation(messages=[each])])
        failure = failure_of(stubs.tokenizer.ApplyChatTemplate, request)
        assert failure.bad_request.field_violations[0].field == "conversations[0].messages[0].role"


@pytest.mark.parametrize("token_id", [-1, 400, 2**31 - 1])
def test_an_id_that_does_not_exist_is_refused_everywhere(stubs, token_id):
    calls = [
        (stubs.tokenizer.Decode, decode([5], [5, token_id])),
        (stubs.tokenizer.Pad, pb.PadRequest(token_batch=ragged([5], [5, token_id]))),
    ]
    for call, request in calls:
        failure = failure_of(call, request)
        assert failure.reason == "TOKEN_ID_OUT_OF_RANGE"
        assert (failure.metadata["row"], failure.metadata["index"]) == ("1", "1")
        assert failure.metadata["vocabularySize"] == "400"
    streamed = failure_of(
        stubs.tokenizer.DecodeStream, iter([pb.DecodeStreamRequest(ids=[5, token_id])])
    )
    looked_up = failure_of(stubs.tokenizer.ConvertTokens, pb.ConvertTokensRequest(ids=[token_id]))
    assert {streamed.reason, looked_up.reason} == {"TOKEN_ID_OUT_OF_RANGE"}


def test_another_vocabulary_is_refused(stubs):
    current = stubs.info().vocabulary
    other = vocabulary_pb2.VocabularyRef()
    other.CopyFrom(current)
    other.fingerprint = "0" * 64
    failure = failure_of(stubs.tokenizer.Decode, decode([5], vocabulary=other))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "VOCABULARY_MISMATCH",
    )
    assert failure.metadata["serverFingerprint"] == current.fingerprint


def test_a_newer_revision_than_there_is_can_be_retried(stubs):
    request = encode("x")
    request.min_revision = 1
    failure = failure_of(stubs.tokenizer.Encode, request)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "VOCABULARY_BEHIND")
    assert failure.retry is not None


def test_work_is_counted(stubs):
    stubs.tokenizer.Encode(encode("one two three"))
    port = stubs.service.metrics_url
    with urllib.request.urlopen(port, timeout=10) as response:
        text = response.read().decode()
    for name in (
        'lockstep_tokenizer_tokens_total{operation="encode",tokenizer="tiny"}',
        'lockstep_tokenizer_operation_seconds_count{operation="encode",tokenizer="tiny"}',
        'lockstep_tokenizer_queue_seconds_count{tokenizer="tiny"}',
        'lockstep_tokenizer_vocab_size{tokenizer="tiny"} 400.0',
        'lockstep_tokenizer_vocab_revision{tokenizer="tiny"} 0.0',
    ):
        assert name in text


def test_the_service_never_loads_torch(stubs):
    stubs.tokenizer.ApplyChatTemplate(chat("hello"))
    for process in (stubs.service.process.pid, *children_of(stubs.service.process.pid)):
        with open(f"/proc/{process}/maps") as maps:
            assert "torch" not in maps.read()


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def test_no_module_of_the_service_imports_torch():
    program = (
        "import sys, tokenizer_service.server, tokenizer_service.chat.template_worker\n"
        "import transformers.utils.chat_template_utils\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"


def split_by(path, pattern):
    """Gives a `tokenizer.json` another pre-tokenizer."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = split
    tokenizer.save(str(path))


@pytest.mark.parametrize(
    ("damage", "way_out"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "save the tokenizer again"),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"pad_token": "<none>"}'),
            "save_pretrained",
        ),
        (lambda folder: split_by(folder / "tokenizer.json", "(a+)+$"), "(a+)+$"),
    ],
    ids=["missing", "damaged", "contradiction", "slow pattern"],
)
def test_a_folder_that_cannot_be_served_is_refused_with_the_way_out(tmp_path, damage, way_out):
    folder = make_tokenizer_folder(tmp_path / "tiny")
    damage(folder)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tokenizer_service", f"--model={folder}", "--store=sqlite://"),
            *("--port=0", "--health-port=0", "--metrics-port=0", "--log-level=error"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["event"]) == ("error", "cannot_start")
    assert way_out in line["reason"].replace("Save", "save")
