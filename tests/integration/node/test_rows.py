"""Calls with any number of rows."""

from pathlib import Path
from typing import Any

import pytest

from lockstep_client import Lockstep
from tests.integration.node.package import needs_node, probe, rectangle
from tests.services import Services

COUNT = 150  # rows, more than go with one request

pytestmark = needs_node


@pytest.fixture(scope="module")
def rows(built: Path, services: Services) -> dict[str, Any]:
    return probe("rows", built, **services.environment, COUNT=str(COUNT))


def test_any_number_of_texts_is_encoded_padded_counted_and_decoded_in_order(rows, client: Lockstep):
    texts = [f"text {row} " + "abc " * (row % 7) for row in range(COUNT)]
    batch = client.tokenizer.encode(texts, padding="longest")
    assert rows["batch"]["tokenIds"] == batch.token_ids
    for name, expected in (
        ("inputIds", batch.input_ids),
        ("attentionMask", batch.attention_mask),
        ("positionIds", batch.position_ids),
    ):
        assert rectangle(rows["batch"]["padded"][name]) == expected.tolist()
    assert rows["counts"] == client.tokenizer.count_tokens(texts)
    assert rows["decoded"] == client.tokenizer.decode(batch)
    assert rows["manyBytes"] == 1


def test_any_number_of_prompts_has_the_tokens_and_seeds_that_the_python_client_gets(
    rows, client: Lockstep
):
    prompts, drawn = rows["batch"]["tokenIds"], rows["drawn"]
    expected = client.model.generate(prompts, max_new_tokens=4, do_sample=True, seed=7)
    assert drawn["promptIndices"] == list(range(COUNT))
    assert drawn["sequences"] == expected.sequences
    assert drawn["fullSequences"] == expected.full_sequences
    assert drawn["seeds"] == [str(seed) for seed in expected.seeds]
    assert drawn["completionTokenCount"] == expected.usage.completion_token_count
    assert rows["padded"] == rows["ragged"]
    logprobs = [row.logits_logprob for row in client.model.score(prompts)]
    assert rows["scored"] == pytest.approx(logprobs, abs=1e-4)


def test_a_list_of_texts_gives_a_list_of_completions_in_order(rows, client: Lockstep):
    assert [each["tokenIds"] for each in rows["completions"]] == rows["drawn"]["sequences"]
    assert [each["seed"] for each in rows["completions"]] == rows["drawn"]["seeds"]
    texts = client.tokenizer.decode(rows["drawn"]["sequences"])
    assert [each["text"] for each in rows["completions"]] == texts
    assert rows["alone"][0] == rows["alone"][1]
    assert rows["none"] == []
    options = {"max_new_tokens": 2, "do_sample": False}
    conversations = [[{"role": "user", "content": f"abc {n}"}] for n in range(2)]
    expected = client.generate(messages=conversations, **options)
    assert rows["answers"] == [each.token_ids for each in expected]


def test_one_row_that_is_wrong_fails_with_its_number_and_costs_no_other_its_result(rows):
    for call in ("decode", "score", "generate"):
        failure = rows["wrong"][call]
        assert (failure["reason"], failure["metadata"]["row"]) == ("TOKEN_ID_OUT_OF_RANGE", "70")
        named = "rows[70]" if call == "decode" else "row 70"
        assert named in failure["message"]
        ((row, reason, message),) = rows["returned"][call]
        assert (row, reason) == (70, "TOKEN_ID_OUT_OF_RANGE")
        assert named in message
    expected, given = rows["others"]
    assert given == expected


def test_a_text_that_fails_leaves_an_empty_row_or_its_error(rows):
    partly = rows["partly"]
    assert (partly["empty"], partly["errorRows"], partly["errors"]) == ([70], [70], 1)
    assert partly["mask"]
    assert partly["shape"][0] == COUNT
    assert rows["long"][1] == rows["tooLong"]["reason"] == "CONTEXT_LENGTH_EXCEEDED"
    assert rows["long"][0] == rows["long"][2] == rows["alone"][0]


def test_a_call_with_many_rows_ends_at_its_limit_or_when_it_is_aborted(rows):
    assert rows["late"]["name"] == "DeadlineExceeded"
    assert rows["left"]["name"] == "TimeoutError"  # the reason of the caller's signal


def test_progress_is_told_up_to_the_last_row(rows):
    counts = [num_done for num_done, _ in rows["seen"]]
    assert counts == sorted(counts)
    assert len(counts) > 1
    assert rows["seen"][-1] == [COUNT, COUNT]


def test_an_answer_that_is_too_large_comes_in_smaller_ones(rows):
    assert rows["large"]["count"] == rows["large"]["expected"]
    assert rows["large"]["equal"]


def test_options_of_many_rows_that_do_not_fit_are_refused(rows):
    assert rows["errors"]["message"] == "errors is one of 'raise', 'return', not 'ignore'."
    assert rows["concurrency"]["message"] == "concurrency takes whole numbers from 1 on, not 0."
