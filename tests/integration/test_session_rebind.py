"""Sessions that move to a newer revision of the vocabulary, through both real services."""

import threading

import numpy as np
import pytest

from lockstep_client import AsyncLockstep, Lockstep, ScoreSelection
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import (
    InvalidField,
    SessionBusy,
    SessionNotFound,
    TokenIdOutOfRange,
    VocabularyBehind,
    VocabularyMismatch,
)
from tests.integration.growing import running_tokenizer
from tests.integration.model_process import model_process

PROMPTS = [[5, 6, 7], [40, 41]]
SAMPLED = {"do_sample": True, "temperature": 1.2, "seed": 5, "eos_token_id": []}
WAIT_S = 1.0


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint, tmp_path_factory):
    with running_tokenizer(tiny_checkpoint, tmp_path_factory.mktemp("tokenizer")) as tokenizer:
        yield tokenizer


@pytest.fixture(scope="module")
def ls(tiny_checkpoint, tokenizer, tmp_path_factory):
    flags = ["--dtype", "fp32", "--tokenizer-address", tokenizer.address]
    flags += ["--vocabulary-wait-s", str(WAIT_S)]
    folder = tmp_path_factory.mktemp("model")
    with (
        model_process(tiny_checkpoint, folder, *flags) as model,
        Lockstep(tokenizer=tokenizer.address, model=model.service.address) as client,
    ):
        yield client


def grow(
    tokenizer, *contents: str, generable: bool | None = None
) -> tuple[list[int], VocabularyRef]:
    added = tokenizer.add(*contents, generable=generable)
    return [result.id for result in added.results], VocabularyRef.from_message(added.vocabulary)


def test_a_session_that_moved_is_as_one_opened_there(tokenizer, ls):
    with ls.model.open_session(PROMPTS, **SAMPLED) as session:
        before = session.vocabulary
        session.step([[8], [42]])
        (new_id,), newest = grow(tokenizer, "<moved>", generable=True)
        session.step([[9], [43]])
        assert session.logits.shape == (2, before.size)
        with pytest.raises(TokenIdOutOfRange):
            session.step([[new_id], [new_id]])
        assert session.rebind(newest) == newest == session.vocabulary
        assert session.logits is None
        assert session.position == (5, 4)
        result = session.step([[new_id], [44]], sample=True)
        assert not result.recomputed
        with ls.model.open_session(PROMPTS, vocabulary=newest, **SAMPLED) as fresh:
            for rows in ([[8], [42]], [[9], [43]]):
                fresh.step(rows)
            expected = fresh.step([[new_id], [44]], sample=True)
            np.testing.assert_array_equal(session.logits, fresh.logits)
            assert session.logits.shape == (2, newest.size)
            assert result.sampled_token_ids == expected.sampled_token_ids
            assert session.generate(max_new_tokens=6).sequences == (
                fresh.generate(max_new_tokens=6).sequences
            )


@pytest.mark.parametrize(
    "config",
    [
        {"do_sample": True, "seed": 3, "seed_mode": "torch"},
        {"do_sample": True, "seed": 3, "top_k": 500, "repetition_penalty": 1.3},
        {"green_list_watermark": {"bias": 4.0}},
        {"typical_p": 0.9, "do_sample": True, "seed": 3},
    ],
    ids=["torch draws", "remembering", "watermark", "reference"],
)
def test_what_a_session_computes_with_follows_it(tokenizer, ls, config):
    config = {"eos_token_id": [], **config}
    config = {"selection": ScoreSelection(scores=True, full=True), **config}
    with ls.model.open_session(PROMPTS, **config) as session:
        first = session.step([[8], [42]], sample=True).sampled_token_ids
        number = ls.model.info().vocabulary.revision
        _, newest = grow(tokenizer, f"<follows {number}>", generable=True)
        session.rebind(newest)
        drawn = session.step([[i] for i in first], sample=True).sampled_token_ids
        with ls.model.open_session(PROMPTS, vocabulary=newest, **config) as fresh:
            fresh.step([[8], [42]])
            expected = fresh.step([[i] for i in first], sample=True)
            assert drawn == expected.sampled_token_ids
            np.testing.assert_array_equal(session.scores, fresh.scores)
            assert session.scores.shape == (2, newest.size)
            out = session.generate(max_new_tokens=5).sequences
            assert out == fresh.generate(max_new_tokens=5).sequences


def test_a_session_moves_to_the_newest_revision_unless_it_is_told(tokenizer, ls):
    with ls.model.open_session(PROMPTS) as session:
        first = session.vocabulary
        _, second = grow(tokenizer, "<second>")
        _, third = grow(tokenizer, "<third>")
        assert session.rebind(second) == second
        assert session.rebind(second) == second  # a repeated call changes nothing
        ls.model.generate([[5]], vocabulary=third, max_new_tokens=1)
        assert session.rebind() == third
        with pytest.raises(InvalidField) as caught:
            session.rebind(first)
        assert [violation.field for violation in caught.value.violations] == ["vocabulary.revision"]
        assert session.rebind() == third
        assert ls.model.get_session(session.session_id).vocabulary == third


def test_a_fork_is_on_the_revision_of_its_original(tokenizer, ls):
    with ls.model.open_session(PROMPTS) as session:
        first = session.vocabulary
        (new_id,), newest = grow(tokenizer, "<forked>")
        with session.fork() as early:
            session.rebind(newest)
            with session.fork([1]) as late:
                assert (early.vocabulary, late.vocabulary) == (first, newest)
                late.step([[new_id]])
                with pytest.raises(TokenIdOutOfRange):
                    early.step([[new_id], []])
                early.rebind(newest)
                early.step([[new_id], []])


def test_steps_of_a_stream_are_at_the_revision_that_the_session_has_then(tokenizer, ls):
    with ls.model.open_session(PROMPTS) as session, session.step_stream() as steps:
        steps.step([[8], [42]])
        (new_id,), newest = grow(tokenizer, "<streamed>")
        session.rebind(newest)
        steps.step([[new_id], [new_id]])
        assert session.logits.shape == (2, newest.size)


def test_a_revision_that_is_not_of_this_chain_is_refused(ls):
    with ls.model.open_session(PROMPTS) as session:
        here = session.vocabulary
        strange = VocabularyRef(here.tokenizer_id, here.revision, "0" * 64, here.size)
        with pytest.raises(VocabularyMismatch) as caught:
            session.rebind(strange)
        assert caught.value.metadata["requestFingerprint"] == "0" * 64
        assert caught.value.metadata["serverFingerprint"] == here.fingerprint
        with pytest.raises(VocabularyBehind) as behind:
            session.rebind(VocabularyRef(here.tokenizer_id, here.revision + 9, "1" * 64, 999))
        assert behind.value.retry_delay_s is not None
        assert session.rebind() == here


def test_a_session_in_use_or_gone_does_not_move(ls):
    with ls.model.open_session([[5, 6]], eos_token_id=[], max_length=200) as session:
        begun = threading.Event()

        def generate() -> None:
            with session.stream(max_new_tokens=190) as stream:
                for _ in stream:
                    begun.set()

        reader = threading.Thread(target=generate)
        reader.start()
        begun.wait(30)
        with pytest.raises(SessionBusy):
            session.rebind(timeout=0.1)  # too short for a repetition
        reader.join()
        session.rebind()
    with pytest.raises(SessionNotFound):
        session.rebind()


async def test_the_asyncio_client_moves_sessions_too(tokenizer, ls):
    address = ls.model._connection.endpoint.address
    async with (
        AsyncLockstep(tokenizer=tokenizer.address, model=address) as client,
        await client.model.open_session(PROMPTS) as session,
    ):
        (new_id,), newest = grow(tokenizer, "<asyncio>")
        assert await session.rebind(newest) == newest
        await session.step([[new_id], [new_id]])
        assert session.logits.shape == (2, newest.size)
