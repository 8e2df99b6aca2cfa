import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc.errors import InvalidField, VocabularyMismatch
from tokenizer_service.growth.archive import ArchiveReader, ArchiveWriter
from tokenizer_service.store import Call, StoredReply, StoredRevision
from vocabulary import (
    AddedToken,
    Change,
    Link,
    MarkedToken,
    NewToken,
    Reference,
    SpecialToken,
    chain,
)

BASE = Reference("tiny", 0, "0" * 64, 10)
NOON = datetime(2026, 1, 1, 12, microsecond=7, tzinfo=UTC)
VECTOR = b"\x00\x00\x80\x3f"


def token(token_id, content, **members):
    return NewToken(id=token_id, token=AddedToken(content), **({"previous_ids": (1,)} | members))


CHANGES = (
    Change((token(10, "<a>"), token(11, "日本", copy_token_id=3, initialization="copy"))),
    Change((token(12, "<v>", input_values=VECTOR, initialization="values", generable=True),)),
    Change(
        special_tokens=(SpecialToken("pad", 12),),
        marked_tokens=(MarkedToken(7, AddedToken("A", special=True)),),
    ),
)


def stored(*changes):
    revisions, newest = [], BASE
    for index, change in enumerate(changes):
        after = chain.follow(newest, change)
        link = Link(newest.fingerprint, change, after)
        revisions.append(StoredRevision(link, NOON + timedelta(seconds=index)))
        newest = after
    return revisions


def reply(number, revision=1):
    call = Call.of(f"00000000-0000-0000-0000-{number:012x}", b"%d" % number)
    return StoredReply(call, revision, b"\0reply \xff", NOON)


def lines(revisions, replies=(), base=BASE):
    writer = ArchiveWriter()
    return [
        writer.base(base),
        *map(writer.revision, revisions),
        *map(writer.reply, replies),
        writer.end(),
    ]


def read(data, present=()):
    reader = ArchiveReader(BASE, present)
    reader.feed(data)
    return reader.finish()


REVISIONS = stored(*CHANGES)
REPLIES = [reply(1), reply(2, revision=3), reply(3, revision=0)]
ARCHIVE = b"".join(lines(REVISIONS, REPLIES))


def test_an_archive_is_read_as_it_was_written():
    archive = read(ARCHIVE)
    assert archive.newest == REVISIONS[-1].link.vocabulary
    assert list(archive.revisions) == REVISIONS
    assert list(archive.replies) == REPLIES


def test_the_lines_are_those_that_the_schema_describes():
    base, first, *_, answered, end = [json.loads(line) for line in ARCHIVE.splitlines()]
    assert base == {
        "format": "lockstep.revisions.v1",
        "base": {"tokenizer_id": "tiny", "fingerprint": "0" * 64, "size": 10},
    }
    assert first["revision"].keys() == {
        *("revision", "parent_fingerprint", "fingerprint", "size", "change", "create_time_us")
    }
    assert first["revision"]["create_time_us"] == 1767268800_000_007
    assert answered["reply"]["response"] == "AHJlcGx5IP8="
    assert end["end"].keys() == {"revisions", "replies", "sha256"}


@given(cuts=st.lists(st.integers(0, len(ARCHIVE)), max_size=6))
def test_an_archive_may_be_cut_anywhere_on_its_way(cuts):
    reader = ArchiveReader(BASE, ())
    places = [0, *sorted(cuts), len(ARCHIVE)]
    for start, end in itertools.pairwise(places):
        reader.feed(ARCHIVE[start:end])
    assert list(reader.finish().revisions) == REVISIONS


@given(place=st.integers(0, len(ARCHIVE) - 1), flip=st.integers(1, 255))
def test_no_byte_can_be_changed_unnoticed(place, flip):
    data = bytearray(ARCHIVE)
    data[place] ^= flip
    with pytest.raises((InvalidField, VocabularyMismatch)):
        read(bytes(data))


@given(length=st.integers(0, len(ARCHIVE) - 1))
def test_no_part_of_an_archive_is_taken_for_the_whole(length):
    with pytest.raises(InvalidField):
        read(ARCHIVE[:length])


def test_nothing_may_follow_the_end():
    with pytest.raises(InvalidField, match="line 9"):
        read(ARCHIVE + b"{}\n")


def test_lines_that_were_left_out_or_exchanged_are_noticed():
    whole = ARCHIVE.splitlines(keepends=True)
    for index in range(len(whole)):
        with pytest.raises(InvalidField):
            read(b"".join(whole[:index] + whole[index + 1 :]))
    for index in range(len(whole) - 1):
        swapped = [*whole]
        swapped[index], swapped[index + 1] = whole[index + 1], whole[index]
        with pytest.raises(InvalidField):
            read(b"".join(swapped))


def test_what_is_here_already_is_compared_and_not_kept():
    archive = read(ARCHIVE, REVISIONS[:2])
    assert list(archive.revisions) == REVISIONS[2:]
    assert archive.newest == REVISIONS[-1].link.vocabulary


def test_an_archive_older_than_what_is_here_has_nothing_new():
    assert not read(b"".join(lines(REVISIONS[:1])), REVISIONS).revisions


def test_a_chain_that_went_on_in_another_way_is_refused_with_both_references():
    other = stored(CHANGES[0], Change((token(12, "<other>"),)))
    with pytest.raises(VocabularyMismatch) as caught:
        read(ARCHIVE, other)
    assert caught.value.metadata["requestRevision"] == "2"
    assert caught.value.metadata["requestFingerprint"] == REVISIONS[1].link.vocabulary.fingerprint
    assert caught.value.metadata["serverFingerprint"] == other[1].link.vocabulary.fingerprint


@pytest.mark.parametrize(
    "base",
    [
        Reference("other", 0, "0" * 64, 10),
        Reference("tiny", 0, "1" * 64, 10),
        Reference("tiny", 0, "0" * 64, 11),
    ],
)
def test_the_archive_of_another_tokenizer_is_refused(base):
    with pytest.raises(VocabularyMismatch):
        read(b"".join(lines((), base=base)))


@pytest.mark.parametrize(
    "change",
    [
        Change(),
        Change((token(10, ""),)),
        Change((token(10, "a\0"),)),
        Change((token(10, " "),)),
        Change((token(10, "x" * 65),)),
        Change(marked_tokens=(MarkedToken(7, AddedToken("A")),)),
        Change(marked_tokens=(MarkedToken(7, AddedToken("", special=True)),)),
        Change((token(10, "x", previous_ids=()),)),
        Change((token(10, "x", previous_ids=(10,)),)),
        Change((token(10, "x", previous_ids=(-1,)),)),
        Change((token(10, "x", copy_token_id=3),)),
        Change((token(10, "x", initialization="copy"),)),
        Change((token(10, "x", initialization="copy", copy_token_id=10),)),
        Change((token(10, "x", initialization="values"),)),
        Change((token(10, "x", input_values=VECTOR),)),
        Change((token(10, "x", initialization="values", input_values=b"123"),)),
        Change((token(10, "x", initialization="values", input_values=b"\0\0\xc0\x7f"),)),
        Change((token(10, "x", initialization="values", input_values=VECTOR * 65537),)),
        Change(
            (
                token(
                    *(10, "x"),
                    initialization="values",
                    input_values=VECTOR,
                    output_values=VECTOR * 2,
                ),
            )
        ),
    ],
)
def test_a_change_that_no_service_makes_is_refused_although_its_chain_is_right(change):
    with pytest.raises(InvalidField, match="line 2"):
        read(b"".join(lines(stored(change))))


def test_texts_that_are_allowed_on_demand_are_imported():
    changes = stored(Change((token(10, "e\u0301"), token(11, "a\x1b"))))
    assert read(b"".join(lines(changes))).revisions


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"idempotency_key": "x"}, "line 5"),
        ({"idempotency_key": reply(2).call.idempotency_key}, "line 6"),
        ({"request_sha256": "0"}, "line 5"),
        ({"revision": 4}, "line 5"),
        ({"revision": -1}, "line 5"),
        ({"revision": True}, "line 5"),
        ({"response": "?"}, "line 5"),
        ({"create_time_us": -1}, "line 5"),
        ({"create_time_us": 2**62}, "line 5"),
        ({"create_time_us": 1.5}, "line 5"),
    ],
)
def test_a_reply_that_no_service_gives_is_refused(members, match):
    whole = ARCHIVE.splitlines(keepends=True)
    changed = json.loads(whole[4])["reply"] | members
    whole[4] = (
        json.dumps({"reply": changed}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    )
    with pytest.raises(InvalidField, match=match):
        read(b"".join(whole))


@pytest.mark.parametrize(
    "line", [b"[]", b"3", b"nothing", b'{"end": {}}', b"\xff", b"[" * 5000, b'{"a":NaN}', b""]
)
def test_a_line_that_is_something_else_is_refused(line):
    first, *_ = lines(())
    with pytest.raises(InvalidField, match="line 2"):
        read(first + line + b"\n")
    with pytest.raises(InvalidField, match="line 1"):
        read(line + b"\n")


def test_a_line_without_an_end_is_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr("tokenizer_service.growth.archive.MAX_LINE_BYTES", 1000)
    reader = ArchiveReader(BASE, ())
    for _ in range(10):
        reader.feed(b"x" * 100)
    with pytest.raises(InvalidField, match="at most 1000 bytes"):
        reader.feed(b"x")


def test_an_archive_has_a_largest_size(monkeypatch):
    monkeypatch.setattr("tokenizer_service.growth.archive.MAX_ARCHIVE_BYTES", 100)
    with pytest.raises(InvalidField, match="at most 100 bytes"):
        read(ARCHIVE)
