"""The client's tokenizer against the real service, with transformers as the reference."""

import io
import zipfile

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lockstep_client import AsyncLockstep, Lockstep
from tests.checkpoint_factory import TURN_END, TURN_START_ID, VOCABULARY_SIZE
from tests.services import Services

TEXTS = ["The capital of France is", "Grüße aus 東京 🙂", "one"]
MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi 🙂"}]


@pytest.fixture
def client(services: Services):
    with services.client() as client:
        yield client


@pytest.fixture(scope="module")
def reference(services: Services) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(services.checkpoint)


def test_texts_become_the_ids_that_transformers_gives(client: Lockstep, reference):
    batch = client.tokenizer.encode(TEXTS)
    assert batch.token_ids == [reference(text)["input_ids"] for text in TEXTS]
    assert batch.vocabulary is not None
    assert (batch.vocabulary.revision, batch.vocabulary.size) == (0, VOCABULARY_SIZE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_has_the_mask_that_transformers_gives(client: Lockstep, reference, side):
    batch = client.tokenizer.encode(TEXTS, padding="longest", padding_side=side)
    reference.pad_token = reference.eos_token
    expected = reference(TEXTS, padding=True, padding_side=side, return_tensors="np")
    np.testing.assert_array_equal(batch.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.attention_mask, expected["attention_mask"])
    real = batch.attention_mask == 1
    counted = batch.attention_mask.cumsum(1) - 1
    np.testing.assert_array_equal(batch.position_ids, np.where(real, counted, 1))


def test_torch_tensors_are_returned_where_they_are_asked_for(client: Lockstep):
    batch = client.tokenizer.encode(TEXTS, padding=True, return_tensors="pt")
    assert isinstance(batch.input_ids, torch.Tensor)
    arrays = client.tokenizer.encode(TEXTS, padding=True)
    assert batch.attention_mask.tolist() == arrays.attention_mask.tolist()


def test_ids_become_text_one_row_or_many(client: Lockstep):
    batch = client.tokenizer.encode(TEXTS, padding=True)
    assert client.tokenizer.decode(batch) == TEXTS
    assert client.tokenizer.decode(batch.token_ids) == TEXTS
    assert client.tokenizer.decode(batch.token_ids[1]) == TEXTS[1]


def test_the_text_of_a_stream_of_ids_never_holds_half_a_character(client: Lockstep):
    (ids,) = client.tokenizer.encode(TEXTS[1]).token_ids
    assert len(ids) > len(TEXTS[1])  # several characters are more than one token
    pieces = list(client.tokenizer.decode_stream(iter(ids)))
    assert "".join(pieces) == TEXTS[1]
    assert all("\ufffd" not in piece and piece for piece in pieces)


def test_a_stream_of_ids_that_ends_is_not_a_cancelled_call(services: Services, client: Lockstep):
    before = services.tokenizer.handled("DecodeStream", "CANCELLED")
    finished = services.tokenizer.handled("DecodeStream", "OK")
    assert list(client.tokenizer.decode_stream([40, 41])) == list(
        client.tokenizer.decode_stream([40, 41])
    )
    assert services.tokenizer.handled("DecodeStream", "OK") == finished + 2
    assert services.tokenizer.handled("DecodeStream", "CANCELLED") == before


def test_what_is_left_of_a_broken_character_comes_at_the_end(client: Lockstep):
    (ids,) = client.tokenizer.encode("東").token_ids
    with client.tokenizer.open_decoder() as decoder:
        assert decoder.feed(ids[:1]) == ""
        assert decoder.end() == "\ufffd"


def test_a_conversation_becomes_the_ids_that_transformers_gives(client: Lockstep, reference):
    batch = client.tokenizer.apply_chat_template(MESSAGES)
    expected = reference.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True)
    assert batch.token_ids == [expected["input_ids"]]
    assert batch.texts == [
        reference.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    ]


def test_several_conversations_are_padded_to_one_batch(client: Lockstep):
    batch = client.tokenizer.apply_chat_template([MESSAGES, MESSAGES[1:]], padding="longest")
    assert batch.attention_mask.sum(1).tolist() == [len(row) for row in batch.token_ids]


def test_a_control_token_spelled_in_a_text_stays_text_unless_asked_for(client: Lockstep):
    (as_text,) = client.tokenizer.encode(TURN_END).token_ids
    (as_control,) = client.tokenizer.encode(TURN_END, parse_special_tokens=True).token_ids
    assert len(as_text) > 1
    assert len(as_control) == 1


def test_the_vocabulary_arrives_whole_and_in_order(client: Lockstep):
    entries = list(client.tokenizer.vocabulary())
    assert [entry.id for entry in entries] == list(range(VOCABULARY_SIZE))
    assert entries[TURN_START_ID].type == "special"
    assert b"".join(e.token_bytes for e in entries if len(e.token_bytes) == 1)
    converted = client.tokenizer.convert_tokens(tokens=["Ġthe", "no such token"], ids=[300])
    assert converted.entries == [entries[300]]
    assert converted.ids[1] is None
    assert entries[converted.ids[0]].token_bytes == b" the"


def test_rows_are_padded_and_counted_without_their_text(client: Lockstep):
    padded = client.tokenizer.pad([[5, 6, 7], [8]], padding_side="right", pad_token_id=9)
    assert padded.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert padded.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    counts = client.tokenizer.count_tokens(TEXTS)
    assert counts == [len(row) for row in client.tokenizer.encode(TEXTS).token_ids]


def test_details_of_tokens_are_returned_where_they_are_asked_for(client: Lockstep):
    (details,) = client.tokenizer.encode(
        "né 🙂", return_offsets="utf16", return_tokens=True, return_token_bytes=True
    ).encodings
    assert b"".join(details.token_bytes).decode() == "né 🙂"
    assert details.offsets[0][0] == 0
    assert details.offsets[-1][1] == 5  # the smiley is two code units
    assert len(details.tokens) == len(details.offsets)


def test_the_tokenizers_files_can_be_used_locally(client: Lockstep, services: Services, tmp_path):
    with zipfile.ZipFile(io.BytesIO(client.tokenizer.artifact())) as archive:
        archive.extractall(tmp_path)
    local = AutoTokenizer.from_pretrained(tmp_path)
    assert local(TEXTS)["input_ids"] == client.tokenizer.encode(TEXTS).token_ids


def test_the_tokenizer_describes_itself(client: Lockstep):
    info = client.tokenizer.info()
    assert info.model_type == "BPE"
    assert info.special_tokens["eos"] == 0
    assert info.base_size == info.vocabulary.size == VOCABULARY_SIZE
    assert info.chat_templates


async def test_the_asyncio_client_gives_the_same(services: Services):
    async with AsyncLockstep(services.tokenizer.address, services.model.address) as client:
        batch = await client.tokenizer.encode(TEXTS, padding="longest")
        assert await client.tokenizer.decode(batch) == TEXTS
        assert await client.tokenizer.decode(batch.token_ids[0]) == TEXTS[0]
        ids = batch.token_ids[1]
        assert "".join([piece async for piece in client.tokenizer.decode_stream(ids)]) == TEXTS[1]
        entries = [entry async for entry in client.tokenizer.vocabulary(start_id=310)]
        assert [entry.id for entry in entries] == list(range(310, VOCABULARY_SIZE))
        assert zipfile.is_zipfile(io.BytesIO(await client.tokenizer.artifact()))
