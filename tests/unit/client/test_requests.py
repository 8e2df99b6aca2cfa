import json
import uuid

import numpy as np
import pytest
from lockstep.v1 import scores_pb2, tensor_pb2, tokenizer_service_pb2, tokens_pb2, vocabulary_pb2

from lockstep_client import Batch, NewToken, ScoreSelection, VocabularyRef
from lockstep_client._requests import model, session, tokenizer, vocabulary

REF = VocabularyRef("tiny", 1, "cd" * 32, 321)


def test_one_text_is_one_item_and_a_pair_has_two_texts():
    assert [item.text for item in tokenizer.encode("abc", {}).items] == ["abc"]
    single, pair = tokenizer.encode(["a", ("b", "")], {}).items
    assert (single.text, single.HasField("text_pair")) == ("a", False)
    assert (pair.text, pair.HasField("text_pair")) == ("b", True)


def test_nothing_is_padded_or_cut_unless_asked_for():
    options = tokenizer.encode("abc", {"max_length": 4, "padding_side": "right"}).options
    assert not options.HasField("padding")
    assert not options.HasField("truncation")


@pytest.mark.parametrize("padding", ["longest", True])
def test_padding_to_the_longest_does_not_send_a_length(padding):
    options = tokenizer.encode("abc", {"padding": padding, "max_length": 4, "truncation": True})
    sent = options.options
    assert sent.padding.strategy == tokenizer_service_pb2.PADDING_STRATEGY_LONGEST
    assert not sent.padding.HasField("max_length")
    assert sent.truncation.max_length == 4


def test_padding_options_are_sent_as_given():
    options = {"padding": "max_length", "max_length": 8, "padding_side": "right", "pad_token_id": 0}
    sent = tokenizer.encode("abc", options).options.padding
    assert sent == tokenizer_service_pb2.PaddingOptions(
        strategy=tokenizer_service_pb2.PADDING_STRATEGY_MAX_LENGTH,
        side=tokens_pb2.PADDING_SIDE_RIGHT,
        max_length=8,
        pad_token_id=0,
    )
    assert sent.HasField("pad_token_id")


def test_options_that_were_not_given_stay_unset():
    options = tokenizer.encode("abc", {"add_special_tokens": False}).options
    assert {field.name for field, _ in options.ListFields()} == {"add_special_tokens"}


@pytest.mark.parametrize(
    "options",
    [{"padding": "short"}, {"padding": True, "padding_side": "up"}, {"return_offsets": "words"}],
)
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(options):
    with pytest.raises(ValueError, match="is one of"):
        tokenizer.encode("abc", options)


def test_truncation_without_a_length_is_refused():
    with pytest.raises(ValueError, match="max_length"):
        tokenizer.encode("abc", {"truncation": True})


def test_a_keyword_that_does_not_exist_is_refused_everywhere():
    with pytest.raises(TypeError, match="padding_sides"):
        tokenizer.encode("abc", {"padding_sides": "left"})
    with pytest.raises(TypeError, match="truncation"):
        tokenizer.pad([[1]], {"truncation": True})
    with pytest.raises(TypeError, match="skip"):
        tokenizer.decode([[1]], {"skip": True})
    with pytest.raises(TypeError, match="sampling"):
        session.step("s", [1], [1], {"sampling": True})
    with pytest.raises(TypeError, match="lstrip"):
        vocabulary.add_tokens(["x"], {"lstrip": True})


def test_pad_goes_to_the_longest_unless_told_otherwise():
    assert tokenizer.pad([[1, 2], [3]], {}).padding.strategy == (
        tokenizer_service_pb2.PADDING_STRATEGY_LONGEST
    )


def test_one_row_of_ids_is_decoded_as_a_batch_of_one():
    assert tokenizer.is_one_row([1, 2])
    assert tokenizer.is_one_row(np.array([1, 2]))
    assert not tokenizer.is_one_row([[1, 2]])
    assert not tokenizer.is_one_row(Batch([[1]]))
    (row,) = tokenizer.decode([1, 2], {}).batch.token_batch.sequences
    assert list(row.ids) == [1, 2]


def test_one_conversation_is_a_list_of_messages_and_several_are_lists_of_them():
    message = {"role": "user", "content": "Hi"}
    assert len(tokenizer.apply_chat_template([message, message], {}).conversations) == 1
    assert len(tokenizer.apply_chat_template([[message], [message]], {}).conversations) == 2


def test_fields_of_a_message_beyond_the_known_ones_travel_as_json():
    tool_call = {"role": "assistant", "content": None, "tool_calls": [{"name": "é"}]}
    parts = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    first, second = tokenizer.apply_chat_template([tool_call, parts], {}).conversations[0].messages
    assert json.loads(first.extra_json) == {"content": None, "tool_calls": [{"name": "é"}]}
    assert json.loads(second.extra_json) == {"content": parts["content"]}


def test_a_content_is_a_text_or_null_or_absent():
    messages = [{"content": ""}, {"content": None}, {}, {"name": None}]
    request = tokenizer.apply_chat_template([{"role": "user", **each} for each in messages], {})
    empty, null, absent, unnamed = request.conversations[0].messages
    assert (empty.HasField("content"), empty.content, empty.extra_json) == (True, "", "")
    assert (null.HasField("content"), null.extra_json) == (False, '{"content": null}')
    assert (absent.HasField("content"), absent.extra_json) == (False, "")
    assert (unnamed.HasField("content"), unnamed.extra_json) == (False, '{"name": null}')


def test_a_message_without_a_role_is_refused_before_the_call():
    with pytest.raises(ValueError, match="a mapping with a role"):
        tokenizer.apply_chat_template([{"content": "Hi"}], {})


def test_full_rows_of_logits_and_scores_are_asked_for_by_the_keywords_of_hugging_face():
    request = model.generate([[1]], {"output_logits": True, "output_scores": True})
    assert request.scores == scores_pb2.ScoreSelection(
        logits=True, scores=True, full=True, dtype=tensor_pb2.DATA_TYPE_FLOAT32
    )
    assert not model.generate([[1]], {}).HasField("scores")


def test_two_ways_to_ask_for_scores_contradict_each_other():
    with pytest.raises(ValueError, match="selection"):
        model.generate([[1]], {"output_logits": True, "selection": ScoreSelection(entropy=True)})


def test_the_vocabulary_of_a_batch_is_sent_unless_another_is_named():
    batch = Batch([[1]], vocabulary=REF)
    assert model.generate(batch, {}).vocabulary == REF.to_message()
    other = VocabularyRef("tiny", 0, "00" * 32, 320)
    assert model.generate(batch, {"vocabulary": other}).vocabulary == other.to_message()
    assert not model.generate([[1]], {}).HasField("vocabulary")


def test_a_priority_of_zero_is_sent():
    assert model.generate([[1]], {"priority": 0}).HasField("priority")
    assert not model.generate([[1]], {}).HasField("priority")


@pytest.mark.parametrize(
    ("selection", "amount"),
    [
        (ScoreSelection(logits=True, top_k=5), "top_k"),
        (ScoreSelection(logits=True, token_ids=[]), "token_ids"),
        (ScoreSelection(logits=True, full=True), "full"),
        (ScoreSelection(entropy=True), None),
    ],
    ids=["top_k", "no ids", "full", "statistics"],
)
def test_a_selection_names_at_most_one_amount(selection, amount):
    assert selection.to_message().WhichOneof("amount") == amount


def test_two_amounts_in_one_selection_are_refused():
    with pytest.raises(ValueError, match="at most one"):
        ScoreSelection(full=True, top_k=5)


def test_positions_of_a_selection_are_named_or_listed():
    assert ScoreSelection(positions="all").to_message().positions == scores_pb2.SCORE_POSITIONS_ALL
    listed = ScoreSelection(position_list=[0, 2]).to_message()
    assert listed.positions == scores_pb2.SCORE_POSITIONS_LIST
    assert list(listed.position_list) == [0, 2]


def test_the_length_of_a_session_is_its_own_and_not_that_of_a_generation():
    request = session.open_session([[1]], {"max_length": 9, "ttl_s": 1.5, "top_k": 4})
    assert request.max_length == 9
    assert not request.generation_config.HasField("max_length")
    assert request.generation_config.top_k == 4
    assert request.ttl.ToMilliseconds() == 1500


def test_a_step_says_where_each_row_is():
    request = session.step("s", [[1, 2], 3, []], [5, 6, 7], {})
    assert [(list(row.ids), row.expected_position) for row in request.rows] == [
        ([1, 2], 5),
        ([3], 6),
        ([], 7),
    ]
    assert not request.HasField("sampling")


def test_the_most_probable_ids_are_rows_of_a_step():
    request = session.step("s", np.array([4, 5]), [1, 1], {"sample": True, "append": True})
    assert [list(row.ids) for row in request.rows] == [[4], [5]]
    assert request.sampling.append


def test_a_step_with_another_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="2 rows; ids for 1"):
        session.step("s", [[1]], [1, 1], {})


def test_tokens_given_as_texts_share_flags_and_every_call_has_its_own_key():
    request = vocabulary.add_tokens(["<a>", "<b>"], {"special": True})
    assert [(t.token.content, t.token.special) for t in request.tokens] == [
        ("<a>", True),
        ("<b>", True),
    ]
    again = vocabulary.add_tokens(["<a>", "<b>"], {"special": True})
    assert uuid.UUID(request.idempotency_key) != uuid.UUID(again.idempotency_key)


def test_a_text_is_not_taken_for_a_list_of_one_letter_tokens():
    with pytest.raises(TypeError, match="list of tokens"):
        vocabulary.add_tokens("<tool>", {})


def test_a_token_with_vectors_is_initialized_from_them():
    token = NewToken("<v>", role="pad", input_values=np.array([1.0, 2.0])).to_message()
    assert token.initialization == vocabulary_pb2.ROW_INITIALIZATION_VALUES
    assert token.role == vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD
    assert token.input_values.dtype == tensor_pb2.DATA_TYPE_FLOAT32
    assert not token.HasField("output_values")
    assert not token.HasField("generable")


def test_roles_are_named_and_a_role_that_does_not_exist_is_refused():
    (assigned,) = vocabulary.set_special_tokens({"pad": 7}, {}).special_tokens
    assert (assigned.role, assigned.token_id) == (vocabulary_pb2.SPECIAL_TOKEN_ROLE_PAD, 7)
    with pytest.raises(ValueError, match="padding"):
        vocabulary.set_special_tokens({"padding": 7}, {})
