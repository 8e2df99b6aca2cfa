"""What a request's vocabulary reference means to this replica."""

import asyncio

import pytest
from lockstep.v1.vocabulary_pb2 import VocabularyRef

from model_service.front.vocabulary.table import VocabularyTable
from rpc.errors import InvalidField, Loading, VocabularyBehind, VocabularyMismatch
from vocabulary import Reference

CHAIN = [Reference("tiny", n, f"{n:064x}", 32 + n) for n in range(4)]


def make_table(newest: int, *, followed: bool = True, wait_s: float = 0.05) -> VocabularyTable:
    table = VocabularyTable(followed=followed, wait_s=wait_s)
    for reference in CHAIN[: newest + 1]:
        table.append(reference)
    return table


def ref(reference: Reference, **changes) -> VocabularyRef:
    fields = {
        "tokenizer_id": reference.tokenizer_id,
        "revision": reference.revision,
        "fingerprint": reference.fingerprint,
    }
    return VocabularyRef(**fields | changes)


async def test_no_reference_means_the_newest_revision():
    assert await make_table(2).resolve(None) == CHAIN[2]


async def test_an_older_revision_stays_usable():
    assert await make_table(2).resolve(ref(CHAIN[1])) == CHAIN[1]


async def test_a_reference_that_takes_a_newer_state_too_means_the_newest():
    assert await make_table(2).resolve(ref(CHAIN[1], or_newer=True)) == CHAIN[2]


async def test_another_fingerprint_is_a_mismatch_that_names_both_sides():
    with pytest.raises(VocabularyMismatch) as caught:
        await make_table(2).resolve(ref(CHAIN[1], fingerprint="f" * 64))
    metadata = caught.value.metadata
    assert metadata["requestFingerprint"] == "f" * 64
    assert metadata["serverFingerprint"] == CHAIN[1].fingerprint
    assert metadata["serverRevision"] == "1"


async def test_the_fingerprint_decides_and_not_the_name():
    assert await make_table(0).resolve(ref(CHAIN[0], tokenizer_id="other")) == CHAIN[0]


async def test_without_a_fingerprint_the_name_decides():
    table = make_table(0)
    assert await table.resolve(VocabularyRef(tokenizer_id="tiny")) == CHAIN[0]
    with pytest.raises(VocabularyMismatch):
        await table.resolve(VocabularyRef(tokenizer_id="other"))


@pytest.mark.parametrize("size", [-1, 31, 33, 2**31 - 1])
async def test_a_size_is_that_of_the_revision(size):
    table = make_table(1)
    assert await table.resolve(ref(CHAIN[0], size=32)) == CHAIN[0]
    with pytest.raises(
        InvalidField, match=r"vocabulary.size: must be the size of the revision, 32"
    ):
        await table.resolve(ref(CHAIN[0], size=size))


async def test_a_negative_revision_is_refused():
    with pytest.raises(InvalidField):
        await make_table(0).resolve(VocabularyRef(revision=-1))


async def test_a_newer_revision_is_waited_for():
    table = make_table(0, wait_s=5)
    waiting = asyncio.create_task(table.resolve(ref(CHAIN[2])))
    await asyncio.sleep(0)
    table.append(CHAIN[1])
    await asyncio.sleep(0)
    assert not waiting.done()
    table.append(CHAIN[2])
    assert await waiting == CHAIN[2]


async def test_a_revision_that_does_not_come_is_behind_and_can_be_retried():
    with pytest.raises(VocabularyBehind) as caught:
        await make_table(1).resolve(ref(CHAIN[3]))
    assert caught.value.metadata == {"requestRevision": "3", "serverRevision": "1"}
    assert caught.value.retry_delay_s is not None


async def test_a_newer_revision_that_can_never_come_is_a_mismatch_that_says_whom_to_follow():
    with pytest.raises(VocabularyMismatch, match="follows no tokenizer service") as caught:
        await make_table(0, followed=False).resolve(ref(CHAIN[1]))
    assert "--tokenizer-address" in str(caught.value)
    assert caught.value.metadata["cause"] == "follows_nobody"


@pytest.mark.parametrize("followed", [True, False])
async def test_ids_of_another_tokenizer_are_a_mismatch_that_says_so(followed):
    table = make_table(2, followed=followed)
    table.address = "tokenizer:50051"
    with pytest.raises(VocabularyMismatch, match="from another tokenizer") as caught:
        await table.resolve(ref(CHAIN[1], fingerprint="f" * 64))
    assert caught.value.metadata["cause"] == "another_vocabulary"
    remedy = "encode with the tokenizer service at tokenizer:50051" if followed else "same --model"
    assert remedy in str(caught.value)


async def test_a_service_that_is_not_reached_is_named_to_those_who_wait_for_its_revisions():
    table = make_table(0)
    table.address, table.unreachable = "tokenizer:50051", "UNAVAILABLE: connection refused"
    with pytest.raises(VocabularyBehind) as caught:
        await table.resolve(ref(CHAIN[1]))
    assert "tokenizer:50051, UNAVAILABLE: connection refused" in str(caught.value)
    table.unreachable = ""
    with pytest.raises(VocabularyBehind, match=r"the newest revision of this replica is 0\.$"):
        await table.resolve(ref(CHAIN[1]))


async def test_a_newer_revision_of_a_service_that_is_refused_is_of_another_tokenizer():
    table = make_table(0)
    table.refused, table.is_another = "it serves another vocabulary", True
    with pytest.raises(VocabularyMismatch, match="because it serves another vocabulary"):
        await table.resolve(ref(CHAIN[1]))


async def test_a_change_that_cannot_be_taken_is_named_to_those_who_wait_for_it():
    table = make_table(0)
    table.address, table.unreachable = "tokenizer:50051", ""
    table.refused = "the vectors have another width"
    with pytest.raises(VocabularyBehind, match="at tokenizer:50051 has: the vectors have another"):
        await table.resolve(ref(CHAIN[1]))


def test_a_nameless_revision_0_takes_the_name_of_the_service_that_is_followed_later():
    table = VocabularyTable(followed=True, wait_s=0)
    table.append(Reference("tiny", 0, "", 32))
    table.append(CHAIN[0])
    assert (len(table), table.newest) == (1, CHAIN[0])


async def test_a_checkpoint_without_a_tokenizer_is_not_compared():
    table = VocabularyTable(followed=False, wait_s=0)
    table.append(Reference("tiny", 0, "", 32))
    assert (await table.resolve(ref(CHAIN[0]))).fingerprint == ""


async def test_nothing_can_be_resolved_before_revision_0_is_known():
    with pytest.raises(Loading):
        await VocabularyTable(followed=True, wait_s=0).resolve(None)
