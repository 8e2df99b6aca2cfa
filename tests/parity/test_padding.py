"""The case this project grew from: prompts of seven and five GPT-2 tokens, batched.

Shown with a byte-level BPE that cuts the two prompts as GPT-2's does, a tiny
GPT-2 (absolute positions, no pad token), both real services and the client.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lockstep_client import Lockstep
from tests.checkpoint_factory import END_OF_TEXT, make_checkpoint
from tests.services import running_services

PROMPTS = ["big unpadded five token prompt ", "padded three token "]
PIECES = ["big", "Ġunp", "added", "Ġfive", "Ġtoken", "Ġprompt", "Ġthree"]
NEW = 3

LEFT = {
    "mask": [[1] * 10, [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]],
    "positions": [list(range(10)), [1, 1, 0, 1, 2, 3, 4, 5, 6, 7]],
}
RIGHT = {
    "mask": [[1] * 10, [1, 1, 1, 1, 1, 0, 0, 1, 1, 1]],
    "positions": [list(range(10)), [0, 1, 2, 3, 4, 1, 1, 5, 6, 7]],
}


def write_tokenizer(folder: Path) -> None:
    """Builds each piece by merging it from the left, so that nothing else merges."""
    vocabulary = [END_OF_TEXT, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for piece in PIECES:
        for length in range(2, len(piece) + 1):
            merges.append((piece[: length - 1], piece[length - 1]))
            vocabulary.append(piece[:length])
    ids = {token: index for index, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT)
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("founding") / "gpt2", "gpt2")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def client(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    folder = tmp_path_factory.mktemp("founding-services")
    with running_services(checkpoint, folder) as services, services.client() as client:
        yield client


@pytest.fixture(scope="module")
def continuations(checkpoint: Path, client: Lockstep) -> list[list[int]]:
    """What each prompt gives alone in `generate`."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    expected = []
    for ids in client.tokenizer.encode(PROMPTS).token_ids:
        with torch.inference_mode():
            output = model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                max_new_tokens=NEW,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        expected.append(output[0, len(ids) :].tolist())
    return expected


def test_the_prompts_have_seven_and_five_tokens(client: Lockstep):
    assert [len(ids) for ids in client.tokenizer.encode(PROMPTS).token_ids] == [7, 5]


@pytest.mark.parametrize(("side", "expected"), [("left", LEFT), ("right", RIGHT)])
def test_mask_and_positions_over_prompt_and_continuation(client, side, expected):
    batch = client.tokenizer.encode(PROMPTS, padding="longest", padding_side=side)
    prompt_columns = slice(0, 7)
    assert batch.attention_mask.tolist() == [row[prompt_columns] for row in expected["mask"]]
    assert batch.position_ids.tolist() == [row[prompt_columns] for row in expected["positions"]]
    out = client.model.generate(batch, max_new_tokens=NEW, do_sample=False, eos_token_id=[])
    whole = batch.extended(out.sequences)
    assert whole.attention_mask.tolist() == expected["mask"]
    assert whole.position_ids.tolist() == expected["positions"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_continues_as_each_prompt_does_alone(client, continuations, side):
    batch = client.tokenizer.encode(PROMPTS, padding="longest", padding_side=side)
    out = client.model.generate(batch, max_new_tokens=NEW, do_sample=False, eos_token_id=[])
    assert [list(row) for row in out.sequences] == continuations


def test_the_pad_id_is_the_end_of_sequence_where_there_is_no_pad_token(client):
    batch = client.tokenizer.encode(PROMPTS, padding="longest")
    assert batch.input_ids[1, 0] == client.tokenizer.info().pad_token_id == 0
