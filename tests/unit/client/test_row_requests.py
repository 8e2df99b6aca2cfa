"""Requests cut into parts by their rows, and their results put together."""

import random

import numpy as np
import pytest
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb

from lockstep_client import Batch, Encoding, VocabularyRef, exceptions
from lockstep_client._calls import row_requests, row_results
from lockstep_client._calls.row_requests import RowLimits, RowRequest
from lockstep_client._calls.row_results import Part
from lockstep_client._requests import model as model_requests
from lockstep_client._requests import tokenizer as requests
from lockstep_client._results.model_info import Capabilities
from lockstep_client._transport.room import Room
from lockstep_client._values.batch import Padded
from model_service.front.checks import rows as service_rows

LIMITS = RowLimits(whole=8, part=4, request_bytes=10_000, at_once=8)
PADDED = {"input_ids": [[0, 5], [6, 7], [8, 9]], "attention_mask": [[0, 1], [1, 1], [1, 1]]}


def _texts(request: tokenizer_pb.EncodeRequest) -> list[str]:
    return [item.text for item in request.items]


def test_a_call_that_fits_is_one_request_as_it_is():
    request = requests.encode(["a"] * 8, {})
    rows = RowRequest(request)
    assert rows.parts(LIMITS) == [range(8)]
    assert rows.cut(range(8)) is request


def test_every_row_is_in_one_part_in_order_and_each_part_has_the_keywords():
    texts = [str(n) for n in range(11)]
    rows = RowRequest(requests.encode(texts, {"return_tokens": True}))
    parts = [rows.cut(part) for part in rows.parts(LIMITS)]
    assert [len(part.items) for part in parts] == [4, 4, 3]
    assert [text for part in parts for text in _texts(part)] == texts
    assert all(part.options.return_tokens for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_no_part_is_larger_than_a_message_unless_it_is_one_row(seed):
    draw = random.Random(seed)
    texts = ["x" * draw.choice([1, 100, 4_000, 20_000]) for _ in range(40)]
    rows = RowRequest(requests.encode(texts, {}))
    parts = rows.parts(LIMITS)
    assert [row for part in parts for row in part] == list(range(40))
    for part in parts:
        assert len(part) == 1 or rows.cut(part).ByteSize() <= LIMITS.request_bytes


@pytest.mark.parametrize("prompts", [[[5], [6, 7], [8, 9]], PADDED], ids=["ragged", "padded"])
def test_prompts_are_cut_whatever_their_form(prompts):
    request = requests.decode(prompts, {})
    (first, second) = (RowRequest(request).cut(part) for part in (range(1), range(1, 3)))
    expected = prompts[1:] if isinstance(prompts, list) else {k: v[1:] for k, v in prompts.items()}
    assert second == requests.decode(expected, {})
    assert len(RowRequest(first)) == 1


def test_continuations_go_with_their_prompts():
    rows = RowRequest(model_requests.score([[n] for n in range(9)], [[n] for n in range(9)], {}))
    for part in rows.parts(LIMITS):
        cut = rows.cut(part)
        assert cut.prompt.token_batch.sequences == cut.continuations.sequences


def test_continuations_that_are_too_few_are_left_to_the_service():
    rows = RowRequest(model_requests.score([[n] for n in range(20)], [[1]] * 19, {}))
    assert rows.parts(LIMITS) == [range(20)]


def test_rows_that_a_session_is_to_hold_stay_together():
    request = model_requests.generate([[n] for n in range(20)], {"keep_session": True})
    assert RowRequest(request).parts(LIMITS) == [range(20)]


def test_a_row_has_the_seed_that_the_service_derives_in_a_call_with_all_rows():
    request = model_requests.generate(
        [[n] for n in range(9)], {"do_sample": True, "seed": 2**63 - 5}
    )
    rows = RowRequest(request)
    seeds = [seed for part in rows.parts(LIMITS) for seed in rows.cut(part).seeds]
    assert seeds == [service_rows.sequence_seed(2**63 - 5, row, 0) for row in range(9)]
    assert not rows.cut(range(4)).generation_config.HasField("seed")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1),
        ({"num_beams": 4}, 4),
        ({"num_return_sequences": 3}, 3),
        ({"guidance_scale": 2.0}, 2),
        ({"guidance_scale": 2.0, "num_return_sequences": 3}, 6),
    ],
    ids=str,
)
def test_a_row_counts_for_the_sequences_that_it_takes(options, expected):
    request = model_requests.generate([[1], [2]], options)
    assert row_requests.sequences_per_row(request.generation_config) == expected
    assert row_requests.num_sequences(request) == 2 * expected


@pytest.mark.parametrize(("running", "waiting"), [(32, 64), (1, 0), (4, 1), (300, 0)])
@pytest.mark.parametrize("per_row", [1, 4, 64])
def test_what_is_on_its_way_is_admitted(running, waiting, per_row):
    limits = {
        "max_running_sequences": running,
        "max_waiting_sequences": waiting,
        "max_sequences_per_call": min(64, running + waiting),
        "max_request_bytes": 2**22,
    }
    limit = RowLimits.of_sequences(Capabilities({}, {}, [], limits, "seeded"), per_row)
    rows = limit.num_requests * limit.part
    assert rows == 1 or rows * per_row <= running + waiting


@pytest.mark.parametrize(
    ("num_tokens", "part", "at_once"), [(4, 8, 48), (512, 8, 32), (8192, 1, 2), (100_000, 1, 1)]
)
def test_long_rows_that_are_computed_as_a_whole_go_with_few_at_a_time(num_tokens, part, at_once):
    limits = RowLimits(whole=64, part=8, request_bytes=1, at_once=48).of_length(num_tokens)
    assert (limits.part, limits.at_once) == (part, at_once)
    assert limits.part <= limits.whole <= 64


def test_an_error_names_the_row_of_the_call():
    error = exceptions.InvalidField(
        "texts[3].text is not a text.",
        metadata={"row": "3"},
        violations=[exceptions.FieldViolation("texts[3]", "row 3 has 3 of them")],
    )
    row_requests.locate(error, range(60, 70))
    assert str(error) == "texts[63].text is not a text."
    assert error.metadata["row"] == "63"
    assert error.violations[0] == exceptions.FieldViolation("texts[63]", "row 63 has 3 of them")


def test_fewer_rows_help_where_the_answer_is_too_large_or_others_are_wanted():
    too_large = exceptions.ResponseTooLarge("The response would have 9 bytes.")
    of_a_row = exceptions.TokenIdOutOfRange("id 999 at row 3, index 0 is not in the vocabulary.")
    of_all = exceptions.InvalidField("temperature must be positive.")
    helped = [
        [row_requests.may_pass_in_halves(error, returns=returns) for returns in (False, True)]
        for error in (too_large, of_a_row, of_all)
    ]
    assert helped == [[True, True], [False, True], [False, False]]


def _batch(ids, side="left", encodings=(), revision=0) -> Batch:
    width = max(map(len, ids))
    fill = [[0] * (width - len(row)) for row in ids]
    rows = [f + row if side == "left" else row + f for row, f in zip(ids, fill, strict=True)]
    ones = [[1] * len(row) for row in ids]
    mask = [f + one if side == "left" else one + f for one, f in zip(ones, fill, strict=True)]
    arrays = [np.array(values, np.int64) for values in (rows, mask)]
    positions = np.where(arrays[1] == 1, arrays[1].cumsum(1) - 1, 1)
    padded = Padded(arrays[0], arrays[1], positions, side, 0)
    vocabulary = VocabularyRef("tiny", revision, "", 10)
    return Batch(ids, vocabulary, padded, list(encodings))


@pytest.mark.parametrize("side", ["left", "right"])
def test_parts_are_padded_together(side):
    ids = [[1, 2], [3], [4, 5, 6], [7]]
    parts = [Part(range(2), _batch(ids[:2], side)), Part(range(2, 4), _batch(ids[2:], side))]
    joined, whole = row_results.batch(parts, "np"), _batch(ids, side)
    assert joined.token_ids == ids
    for name in ("input_ids", "attention_mask", "position_ids"):
        assert (joined[name] == whole[name]).all()
        assert joined[name].dtype == np.int64


def test_a_row_that_failed_is_empty_and_has_its_error():
    error = exceptions.InvalidField("items[0] is too long.")
    cut = Encoding(truncated_token_count=3)
    parts = [
        Part(range(1), _batch([[1, 2]])),
        Part(range(1, 2), error=error),
        Part(range(2, 3), _batch([[3]], encodings=[cut], revision=1)),
    ]
    joined = row_results.batch(parts, "np")
    assert joined.token_ids == [[1, 2], [], [3]]
    assert joined.errors == {1: error}
    assert joined["attention_mask"].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert joined.encodings == [Encoding(), Encoding(), cut]
    assert joined.vocabulary.revision == 1


def test_parts_of_several_revisions_are_noticed():
    parts = [Part(range(1), _batch([[1]], revision=n)) for n in (3, 4, 3)]
    assert row_results.newest_of_several(parts) == 4
    assert row_results.newest_of_several(parts[:1]) is None


def test_who_comes_first_is_let_in_first_and_never_more_than_there_is_room_for():
    room, begun = Room(), []
    room.capacity = 4
    visits = [room.ask(count, lambda n=n: begun.append(n)) for n, count in enumerate((3, 2, 1))]
    assert begun == [0]
    room.leave(visits[0])
    assert begun == [0, 1, 2]


def test_more_than_there_is_room_for_gets_an_empty_room():
    room, begun = Room(), []
    small, large = (room.ask(count, lambda n=count: begun.append(n)) for count in (1, 9))
    assert begun == [1]
    room.leave(small)
    assert begun == [1, 9]
    room.leave(large)
    assert not room.busy


def test_who_no_longer_waits_holds_up_nobody():
    room, begun = Room(), []
    room.capacity = 2
    first, second, _ = (
        room.ask(count, lambda n=n: begun.append(n)) for n, count in enumerate((1, 2, 1))
    )
    room.leave(second)
    assert begun == [0, 2]
    room.leave(first)
    assert room.busy
