"""Texts, batches, chat, generation, scores and descriptions, as the Python client has them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep_client import Lockstep, ScoreSelection
from tests.integration.node.package import needs_node, probe, rectangle
from tests.services import Services

TEXTS = ["The capital of France is", "Grüße aus 東京 🙂"]
MESSAGES = [{"role": "user", "content": "Say hello."}]
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": []}

pytestmark = needs_node


@pytest.fixture(scope="module")
def texts(built: Path, services: Services) -> dict[str, Any]:
    return probe("texts", built, **services.environment)


def test_texts_become_the_ids_that_the_python_client_gets(texts, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    assert texts["batch"]["tokenIds"] == batch.token_ids
    assert texts["batch"]["vocabulary"]["fingerprint"] == batch.vocabulary.fingerprint
    assert texts["counts"] == [len(row) for row in batch.token_ids]
    assert texts["decoded"] == TEXTS
    assert texts["decodedRow"] == texts["decodedStream"] == TEXTS[1]
    assert [row["roundTrip"] for row in texts["decodedRows"]] == [True, True]


def test_padding_mask_and_positions_are_those_of_the_python_client(texts, client: Lockstep):
    left = client.tokenizer.encode(TEXTS, padding="longest", pad_to_multiple_of=8)
    right = client.tokenizer.pad(left, padding_side="right")
    extended = left.extended([[7], [8, 9]])
    for name, batch in (("batch", left), ("right", right), ("extended", extended)):
        given = texts[name]["padded"]
        assert given["paddingSide"] == batch.padded.padding_side
        assert rectangle(given["inputIds"]) == batch.input_ids.tolist()
        assert rectangle(given["attentionMask"]) == batch.attention_mask.tolist()
        assert rectangle(given["positionIds"]) == batch.position_ids.tolist()
    assert texts["extended"]["tokenIds"] == extended.token_ids


def test_rows_that_are_equally_long_are_a_rectangle_without_padding(texts):
    equal = texts["equal"]
    assert rectangle(equal["inputIds"]) == [[5, 6], [7, 8]]
    assert rectangle(equal["attentionMask"]) == [[1, 1], [1, 1]]
    assert rectangle(equal["positionIds"]) == [[0, 1], [0, 1]]


def test_offsets_index_the_texts_of_javascript(texts):
    units = TEXTS[1].encode("utf-16-le")
    encoding = texts["batch"]["encodings"][1]
    start, end = encoding["offsets"][-1]
    assert units[2 * start : 2 * end].decode("utf-16-le") == "🙂"
    assert len(encoding["tokens"]) == len(encoding["offsets"])


def test_messages_are_rendered_as_for_the_python_client(texts, client: Lockstep):
    batch = client.tokenizer.apply_chat_template(MESSAGES)
    assert texts["chat"] == {"tokenIds": batch.token_ids, "texts": batch.texts}
    answer = client.generate(messages=MESSAGES, max_new_tokens=8)
    assert texts["answer"]["text"] == answer.text
    assert texts["answer"]["tokenIds"] == answer.token_ids


def test_tokens_are_those_that_the_python_client_gets(texts, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    greedy = client.model.generate(batch, **GREEDY)
    assert texts["greedy"]["sequences"] == greedy.sequences
    assert texts["greedy"]["fullSequences"] == greedy.full_sequences
    assert texts["greedy"]["finishReasons"] == greedy.finish_reasons
    sampling = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 11}
    sampled = client.model.generate(batch, **sampling)
    assert texts["sampled"]["sequences"] == sampled.sequences
    assert texts["sampled"]["seeds"] == [str(seed) for seed in sampled.seeds]


def test_the_configuration_of_an_answer_gives_the_same_answer_again(texts):
    assert texts["again"] == texts["sampled"]["sequences"]


def test_rows_of_logits_are_those_of_which_the_tokens_are_the_largest(texts):
    greedy = texts["greedy"]
    assert greedy["logits"]["shape"] == greedy["scores"] == [2, 12, 320]
    assert int(np.argmax(greedy["logits"]["last"])) == greedy["sequences"][1][11]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_logits_of_each_type_of_the_wire_are_those_of_the_python_client(
    texts, client: Lockstep, dtype
):
    batch = client.tokenizer.encode(TEXTS)
    selection = ScoreSelection(logits=True, full=True, dtype=dtype)
    expected = client.model.compute_logits(batch, selection=selection).logits
    given = texts["distributions"][dtype]
    assert given["shape"] == list(expected.shape)
    # Both are rounded of a float32 that the composition of a step may change in its last bits.
    spacing = {"float32": 2**-20, "float16": 2**-10, "bfloat16": 2**-7}[dtype]
    np.testing.assert_allclose(
        given["first"], expected[0].astype(np.float64), rtol=spacing, atol=1e-5
    )


def test_the_words_for_full_rows_are_the_same_in_every_call(texts):
    words = texts["words"]
    assert words["computed"] == [[2, 320], [2, 320]]
    assert words["scored"] == [[320, 0], [320, 0]]
    assert words["opened"] == [[320, 320], [0, 320]]
    assert words["traced"] > 0
    assert words["both"]["message"] == "Give selection, or outputLogits, not both."


def test_scores_are_those_of_the_python_client(texts, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    selection = ScoreSelection(rank=True, top_k=2, logits=True)
    expected = client.model.score(batch, [[1, 2], [3]], selection=selection)
    for given, scored in zip(texts["scored"], expected, strict=True):
        assert given["logitsLogprob"] == pytest.approx(scored.logits_logprob)
        assert [p["rank"] for p in given["scores"]] == [p.rank for p in scored.scores]
        for position, of_python in zip(given["scores"], scored.scores, strict=True):
            ids = [token["tokenId"] for token in position["tokens"]]
            assert ids == [token.token_id for token in of_python.tokens]


def test_a_stream_gives_what_the_whole_answer_has(texts):
    rows: list[list[int]] = [[], []]
    for delta in texts["streamed"]["deltas"]:
        rows[delta["promptIndex"]] += delta["tokenIds"]
    assert rows == texts["streamed"]["sequences"] == texts["greedy"]["sequences"]


def test_text_arrives_in_pieces_that_never_hold_half_a_character(texts):
    assert "".join(texts["pieces"]) == "🙂東"
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in texts["pieces"])
    assert len(texts["forced"]["ids"]) > 2
    completion = texts["forced"]["completion"]
    assert completion["text"] == texts["forced"]["asText"] == "🙂東"
    assert completion["tokenIds"] == texts["forced"]["ids"]


def test_services_describe_themselves_as_to_the_python_client(texts, client: Lockstep):
    tokenizer, model = client.tokenizer.info(), client.model.info()
    assert texts["tokenizerInfo"]["specialTokens"] == tokenizer.special_tokens
    assert texts["tokenizerInfo"]["chatTemplates"] == tokenizer.chat_templates
    assert texts["modelInfo"]["parameterCount"] == model.parameter_count
    assert texts["modelInfo"]["determinism"]["level"] == model.determinism.level
    assert texts["modelInfo"]["vocabularyFollowing"]["state"] == "following"
    assert texts["capabilities"]["methods"] == client.model.capabilities().methods
    names = [processor.name for processor in client.model.logits_processors()]
    assert [processor["name"] for processor in texts["processors"]] == names
    plan = client.model.validate(client.tokenizer.encode(TEXTS), **GREEDY)
    assert texts["plan"]["kvTokenCount"] == plan.kv_token_count
    assert texts["converted"]["ids"] == client.tokenizer.convert_tokens(["a", "nowhere"]).ids
    assert texts["entries"] == list(range(300, 320))
    assert texts["artifact"] == "PK"
