"""Large texts beside small ones: memory, turns, and answers that grow too large."""

import time

import psutil
import pytest
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2

from tests.integration.tokenizer_process import failure_of, running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder

MIB = 2**20
EVERYTHING = pb.EncodeOptions(
    offset_unit=pb.OFFSET_UNIT_BYTES,
    return_special_tokens_mask=True,
    return_word_ids=True,
    return_tokens=True,
    return_token_bytes=True,
    return_token_type_ids=True,
)
TEXT = "".join(chr(0x1F600 + (7 * index) % 80) for index in range(15_000))  # 60 KB


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    tokenizer = make_tokenizer_folder(folder / "tiny")
    flags = (f"--max-working-bytes={32 * MIB}", f"--max-response-bytes={8 * MIB}")
    with running_tokenizer(tokenizer, folder / "service", *flags) as running:
        yield running


def encode(*texts, options=EVERYTHING):
    return pb.EncodeRequest(items=[pb.TextItem(text=text) for text in texts], options=options)


def decode(*rows, **members):
    sequences = [tokens_pb2.TokenSequence(ids=row) for row in rows]
    batch = tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=sequences))
    return pb.DecodeRequest(batch=batch, **members)


def peak_until_idle(process):
    """Returns the largest memory of a process until it has nothing more to do."""
    peak, worked_s = 0, -1.0
    while sum(process.cpu_times()[:2]) > worked_s + 0.1:
        worked_s = sum(process.cpu_times()[:2])
        for _ in range(100):
            time.sleep(0.01)
            peak = max(peak, process.memory_info().rss)
    return peak


@pytest.mark.parametrize("options", [EVERYTHING, pb.EncodeOptions()])
def test_the_answer_to_many_texts_is_that_to_each_of_them(stubs, options):
    texts = [TEXT[:8_000], "one", "", TEXT[:5_000], "two three"]
    whole = stubs.tokenizer.Encode(encode(*texts, options=options))
    each = [stubs.tokenizer.Encode(encode(text, options=options)) for text in texts]
    assert list(whole.token_batch.sequences) == [one.token_batch.sequences[0] for one in each]
    assert list(whole.details) == [details for one in each for details in one.details]
    assert whole.vocabulary == each[0].vocabulary


def test_rows_of_a_large_text_say_what_was_cut_also_where_nothing_was(stubs):
    truncation = pb.TruncationOptions(max_length=1000)
    texts = [TEXT, "one", TEXT]
    response = stubs.tokenizer.Encode(
        encode(*texts, options=pb.EncodeOptions(truncation=truncation))
    )
    assert [len(row.ids) for row in response.token_batch.sequences][::2] == [1000, 1000]
    assert [row.truncated_token_count > 0 for row in response.details] == [True, False, True]


def test_an_answer_that_grows_too_large_is_left_unfinished(stubs):
    one = stubs.tokenizer.Encode(encode(TEXT)).ByteSize()
    failure = failure_of(stubs.tokenizer.Encode, encode(*[TEXT] * 64))
    assert failure.reason == "RESPONSE_TOO_LARGE"
    assert "at least" in failure.message
    limit, reached = 8 * MIB, int(failure.metadata["responseBytes"])
    assert limit < reached < limit + 2 * one


@pytest.mark.parametrize("members", [{}, {"return_bytes": True}])
def test_a_decoded_text_that_grows_too_large_is_left_unfinished(stubs, members):
    lookup = pb.ConvertTokensRequest(tokens=["Ġcapital"])
    (token,) = stubs.tokenizer.ConvertTokens(lookup).tokens
    failure = failure_of(stubs.tokenizer.Decode, decode(*[[token.id] * 950_000] * 2, **members))
    assert failure.reason == "RESPONSE_TOO_LARGE"
    assert int(failure.metadata["responseBytes"]) < 9 * MIB


def test_a_decoded_text_that_encode_would_refuse_is_not_encoded_again(stubs):
    failure = failure_of(stubs.tokenizer.Decode, decode([300] * 200_000, check_round_trip=True))
    assert failure.reason == "INVALID_FIELD"
    assert failure.metadata["field"] == "check_round_trip"


def test_small_calls_are_answered_while_large_ones_run(stubs):
    large = pb.CountTokensRequest(items=[pb.TextItem(text=TEXT)] * 60)
    calls = [stubs.tokenizer.CountTokens.future(large) for _ in range(4)]
    for _ in range(20):
        stubs.tokenizer.Encode(encode("hello"))
    assert not any(call.done() for call in calls), "the small calls waited for the large ones"
    assert all(list(call.result().counts) == [len(TEXT) * 4] * 60 for call in calls)


def test_cancelled_calls_with_large_texts_leave_the_memory_as_it_was(stubs):
    stubs.tokenizer.Encode(encode(TEXT))  # buffers that stay
    process = psutil.Process(stubs.service.process.pid)
    before = process.memory_info().rss
    calls = [stubs.tokenizer.Encode.future(encode(*[TEXT] * 64)) for _ in range(6)]
    time.sleep(0.5)
    for call in calls:
        call.cancel()
    # Six requests and what is worked on; all answers together would have 500 MB.
    assert peak_until_idle(process) < before + 250 * MIB
    assert process.memory_info().rss < before + 50 * MIB
