"""Calls with more rows than one request may have, against the real services."""

import asyncio
import time

import numpy as np
import pytest

from lockstep_client import AsyncLockstep, Lockstep, ScoreSelection, exceptions
from tests.services import Services

SIZES = [150, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
WRONG_ID = 100_000


@pytest.fixture
def ls(services: Services):
    with services.client() as client:
        yield client


def _texts(count: int) -> list[str]:
    return [f"text {row} " + "abc " * (row % 7) for row in range(count)]


@pytest.mark.parametrize("count", SIZES)
def test_any_number_of_texts_is_encoded_padded_counted_and_decoded_in_order(ls: Lockstep, count):
    texts = _texts(count)
    batch = ls.tokenizer.encode(texts, padding="longest", progress=True)
    assert batch.token_ids == [ls.tokenizer.encode(text).token_ids[0] for text in texts]
    lengths = [len(ids) for ids in batch.token_ids]
    assert batch["input_ids"].shape == (count, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert ls.tokenizer.count_tokens(texts) == lengths
    decoded = ls.tokenizer.decode(batch, progress=True)
    assert decoded == ls.tokenizer.decode(batch.token_ids)
    assert decoded[-1] == ls.tokenizer.decode(batch.token_ids[-1])


@pytest.mark.parametrize("count", SIZES)
def test_any_number_of_texts_is_scored_in_order(ls: Lockstep, count):
    batch = ls.tokenizer.encode(_texts(count))
    scored = ls.model.score(batch, progress=True)
    assert len(scored) == count
    for row in (0, count // 2, count - 1):
        (alone,) = ls.model.score([batch.token_ids[row]])
        assert scored[row].logits_logprob == pytest.approx(alone.logits_logprob, abs=1e-4)
        assert [s.token_id for s in scored[row].scores] == [s.token_id for s in alone.scores]


@pytest.mark.parametrize("count", SIZES)
def test_any_number_of_prompts_is_continued_in_order_with_seeds_of_their_own(ls: Lockstep, count):
    batch = ls.tokenizer.encode(_texts(count))
    options = {"max_new_tokens": 4, "do_sample": True, "seed": 7}
    out = ls.model.generate(batch, progress=True, **options)
    assert [sequence.prompt_index for sequence in out.details] == list(range(count))
    assert len(set(out.seeds)) == count
    assert out.usage.completion_token_count == sum(map(len, out.sequences))
    rows = zip(batch.token_ids, out.sequences, strict=True)
    assert out.full_sequences == [[*prompt, *new] for prompt, new in rows]
    assert out.sequences[:8] == ls.model.generate(batch.token_ids[:8], **options).sequences
    for row in (0, count // 2, count - 1):
        alone = {**options, "seed": out.seeds[row]}
        assert ls.model.generate([batch.token_ids[row]], **alone).sequences == [out.sequences[row]]


@pytest.mark.parametrize("count", SIZES)
def test_a_list_of_texts_gives_a_list_of_completions_in_order(ls: Lockstep, count):
    texts = _texts(count)
    options = {"max_new_tokens": 4, "do_sample": True, "seed": 7}
    answers = ls.generate(texts, progress=True, **options)
    assert len(answers) == count
    batch = ls.tokenizer.encode(texts)
    assert [answer.prompt_token_ids for answer in answers] == batch.token_ids
    together = ls.model.generate(batch, **options)
    assert [answer.token_ids for answer in answers] == together.sequences
    assert [answer.seed for answer in answers] == together.seeds


def test_one_text_gives_one_completion_and_a_list_of_one_a_list(ls: Lockstep):
    options = {"max_new_tokens": 4, "do_sample": False}
    alone = ls.generate("abc", **options)
    (of_list,) = ls.generate(["abc"], **options)
    assert (alone.text, alone.token_ids) == (of_list.text, of_list.token_ids)
    assert ls.generate([]) == []


def test_conversations_of_a_list_are_answered_one_by_one(ls: Lockstep):
    conversations = [[{"role": "user", "content": f"abc {n}"}] for n in range(3)]
    options = {"max_new_tokens": 4, "do_sample": False}
    answers = ls.generate(messages=conversations, **options)
    alone = [ls.generate(messages=messages, **options) for messages in conversations]
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in alone]


async def test_the_asyncio_client_takes_lists_too(services: Services):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    async with AsyncLockstep(**addresses) as ls:
        batch = await ls.tokenizer.encode(_texts(150))
        out = await ls.model.generate(batch, max_new_tokens=2)
        assert len(out.sequences) == 150
        assert len(await ls.generate(_texts(70), max_new_tokens=2)) == 70


def test_a_padded_batch_of_any_size_is_cut_with_its_padding(ls: Lockstep):
    batch = ls.tokenizer.encode(_texts(150), padding="longest", padding_side="left")
    padded = ls.model.generate(batch, max_new_tokens=2, do_sample=False)
    ragged = ls.model.generate(batch.token_ids, max_new_tokens=2, do_sample=False)
    assert padded.sequences == ragged.sequences


def test_texts_are_cut_by_bytes_too(ls: Lockstep):
    texts = ["x " * 120_000] * 40  # 9.6 MB, in requests of at most 4 MiB
    assert len(set(ls.tokenizer.count_tokens(texts))) == 1


def test_an_answer_that_is_too_large_comes_in_smaller_ones(services: Services, ls: Lockstep):
    limit = ls.model.capabilities().limits["max_response_bytes"]
    row = [5] * 250
    one = 250 * 320 * 4  # full rows of float32
    count = min(limit // one * 2, 500)
    scored = ls.model.score([row] * count, selection=ScoreSelection(logits=True, full=True))
    assert len(scored) == count
    assert all(np.array_equal(scored[0].scores[0].logits, s.scores[0].logits) for s in scored[:3])


@pytest.mark.parametrize("wrong", [0, 70, 149])
def test_one_row_that_is_wrong_raises_with_its_number(ls: Lockstep, wrong):
    rows = [[5, 6]] * 150
    rows[wrong] = [5, WRONG_ID]
    for call in (ls.tokenizer.decode, ls.model.score, ls.model.generate):
        with pytest.raises(exceptions.TokenIdOutOfRange, match=rf"\brows?[ \[]{wrong}\b") as raised:
            call(rows)
        assert raised.value.metadata["row"] == str(wrong)


def test_one_row_that_is_wrong_costs_no_other_its_result(ls: Lockstep):
    rows = [[5, row % 300] for row in range(150)]
    good = ls.model.generate(rows, max_new_tokens=2, do_sample=False)
    rows[70] = [5, WRONG_ID]
    decoded = ls.tokenizer.decode(rows, errors="return")
    scored = ls.model.score(rows, errors="return")
    out = ls.model.generate(rows, max_new_tokens=2, do_sample=False, errors="return")
    for errors in (decoded[70], scored[70], out.details[70].error):
        assert isinstance(errors, exceptions.TokenIdOutOfRange)
    assert [row for row, text in enumerate(decoded) if not isinstance(text, str)] == [70]
    assert [row for row, s in enumerate(scored) if isinstance(s, Exception)] == [70]
    assert out.sequences == [*good.sequences[:70], [], *good.sequences[71:]]


def test_a_text_that_fails_has_its_error_in_the_place_of_its_completion(ls: Lockstep):
    texts = ["abc", "x" * 3000, "abc"]  # the second is longer than the context
    with pytest.raises(exceptions.ContextLengthExceeded):
        ls.generate(texts, max_new_tokens=2)
    first, wrong, last = ls.generate(texts, max_new_tokens=2, do_sample=False, errors="return")
    assert isinstance(wrong, exceptions.ContextLengthExceeded)
    assert first.token_ids == last.token_ids


def test_a_text_that_cannot_be_encoded_leaves_an_empty_row(ls: Lockstep):
    texts = _texts(100)
    texts[80] = "x" * 2_000_000
    batch = ls.tokenizer.encode(texts, errors="return")
    assert [row for row, ids in enumerate(batch.token_ids) if not ids] == [80]
    assert list(batch.errors) == [80]


def test_a_timeout_holds_for_the_whole_call(ls: Lockstep):
    ls.model.info()
    began = time.monotonic()
    with pytest.raises(exceptions.DeadlineExceeded):
        ls.model.generate([[5]] * 300, max_new_tokens=250, eos_token_id=[], timeout=0.5)
    assert time.monotonic() - began < 30


def test_the_first_failure_ends_what_still_runs(services: Services, ls: Lockstep):
    rows = [[5]] * 100 + [[WRONG_ID]]
    with pytest.raises(exceptions.TokenIdOutOfRange):
        ls.model.generate(rows, max_new_tokens=250, eos_token_id=[], concurrency=20)
    deadline = time.monotonic() + 10
    while ls.model.load().running_sequence_count:
        assert time.monotonic() < deadline, "sequences still run"
        time.sleep(0.05)


async def test_calls_of_one_client_never_have_more_on_their_way_than_the_service_admits(
    services: Services,
):
    addresses = {"tokenizer": services.tokenizer.address, "model": services.model.address}
    async with AsyncLockstep(**addresses, retries=0) as ls:
        rows, options = [[5]] * 60, {"max_new_tokens": 30, "eos_token_id": []}
        await asyncio.gather(*(ls.model.generate(rows, **options) for _ in range(5)))


def test_a_keyword_for_errors_that_is_none_is_refused(ls: Lockstep):
    for call in (ls.tokenizer.decode, ls.model.score, ls.model.generate):
        with pytest.raises(ValueError, match="'raise', 'return'"):
            call([[5]], errors="ignore")


def test_progress_is_drawn_on_standard_error(ls: Lockstep, capsys):
    ls.tokenizer.count_tokens(_texts(100), progress=True)
    captured = capsys.readouterr()
    assert "100/100" in captured.err
    assert not captured.out
