import hashlib

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from model_service.engine.vocabulary import BLOCK_ROWS, Vocabulary
from model_service.messages import NewRow

ROWS, SIZE, WIDTH = 40, 37, 16  # a checkpoint padded beyond its tokenizer


def llama(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def row(token_id: int, initialization: str = "mean", **values) -> NewRow:
    return NewRow(token_id, initialization, values.pop("generable", False), **values)


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(WIDTH).astype("<f4")


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


tied = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


@tied
def test_logits_at_revision_0_are_those_of_the_model_without_its_padding(tied):
    model = llama(tied)
    expected = logits(model, [1, 2, 3])[:, :SIZE]
    Vocabulary(model, SIZE, 8)
    assert torch.allclose(logits(model, [1, 2, 3]), expected, atol=1e-6)


@tied
def test_growth_leaves_every_older_logit_equal_to_the_bit(tied):
    model = llama(tied)
    vocabulary = Vocabulary(model, SIZE, 8)
    seen = [logits(model, [1, 2, 3])]
    for revision in range(1, 60):
        vocabulary.grow(revision, [row(vocabulary.size), row(vocabulary.size + 1, "zero")])
        grown = logits(model, [1, 2, 3])
        assert grown.shape[1] == SIZE + 2 * revision
        for before in seen:
            assert torch.equal(grown[:, : before.shape[1]], before)
        seen.append(grown)
    assert vocabulary.size > SIZE + BLOCK_ROWS + 8  # beyond a block and the reserve


@tied
def test_trained_vectors_give_what_resizing_in_hugging_face_gives(tied):
    model, theirs = llama(tied), llama(tied)
    inputs, outputs = vector(1), vector(1) if tied else vector(2)
    vocabulary = Vocabulary(model, ROWS, 8)
    vocabulary.grow(
        1,
        [row(ROWS, "values", input_values=inputs.tobytes(), output_values=outputs.tobytes())],
    )
    theirs.resize_token_embeddings(ROWS + 1, mean_resizing=False)
    with torch.no_grad():
        theirs.get_input_embeddings().weight[ROWS] = torch.from_numpy(inputs)
        theirs.get_output_embeddings().weight[ROWS] = torch.from_numpy(outputs)
    ids = [1, ROWS, 3]
    assert torch.allclose(logits(model, ids), logits(theirs, ids), atol=1e-6)


@tied
def test_a_new_row_is_the_mean_of_the_pieces_it_had(tied):
    model = llama(tied)
    embedding = model.get_input_embeddings().weight.detach().clone()
    head = model.get_output_embeddings().weight.detach().clone()
    vocabulary = Vocabulary(model, SIZE, 8)
    vocabulary.grow(1, [row(SIZE, "mean_of_pieces", previous_ids=[4, 9, 9])])
    expected = (embedding[4].double() + 2 * embedding[9].double()) / 3
    assert torch.equal(model.get_input_embeddings().weight[SIZE], expected.float())
    expected = (head[4].double() + 2 * head[9].double()) / 3
    assert torch.equal(model.lm_head.tail[0, 0], expected.float())


@tied
def test_pieces_may_be_new_rows_themselves(tied):
    model = llama(tied)
    vocabulary = Vocabulary(model, SIZE, 8)
    data = vector(3).tobytes()
    vocabulary.grow(1, [row(SIZE, "values", input_values=data)])
    vocabulary.grow(2, [row(SIZE + 1, "copy", copy_token_id=SIZE)])
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight[SIZE + 1], weight[SIZE])
    assert torch.equal(model.lm_head.tail[0, 1], model.lm_head.tail[0, 0])


def test_padding_rows_of_the_checkpoint_are_reused_and_initialized():
    model = llama(tied=False)
    vocabulary = Vocabulary(model, SIZE, 8)
    vocabulary.grow(1, [row(SIZE, "zero")])
    assert (model.get_input_embeddings().weight[SIZE] == 0).all()
    assert (logits(model, [1])[:, SIZE] == 0).all()


def test_the_mean_is_taken_over_ids_of_revision_0_only():
    model = llama(tied=True)
    embedding = model.get_input_embeddings().weight.detach()[:SIZE].double().mean(0)
    vocabulary = Vocabulary(model, SIZE, 8)
    vocabulary.grow(1, [row(SIZE, "mean")])
    assert torch.equal(model.get_input_embeddings().weight[SIZE], embedding.float())


def test_a_head_with_a_bias_grows_with_the_mean_bias_of_the_pieces():
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=SIZE,
            hidden_size=WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).eval()
    model.lm_head.bias = torch.nn.Parameter(torch.arange(SIZE).float())
    vocabulary = Vocabulary(model, SIZE, 8)
    vocabulary.grow(1, [row(SIZE, "mean_of_pieces", previous_ids=[4, 10])])
    assert float(model.get_output_embeddings().tail_bias[0, 0]) == 7.0


def test_replicas_agree_to_the_bit_and_on_the_hash():
    hashes = set()
    for _ in range(2):
        vocabulary = Vocabulary(llama(tied=False), SIZE, 8)
        vocabulary.grow(1, [row(SIZE), row(SIZE + 1, "mean_of_pieces", previous_ids=[1, 2])])
        hashes.add(vocabulary.added_rows_sha256)
    assert len(hashes) == 1
    assert hashes != {hashlib.sha256().hexdigest()}


@pytest.mark.parametrize(
    ("revision", "rows"),
    [
        (2, [row(SIZE)]),
        (1, [row(SIZE + 1)]),
        (1, [row(SIZE), row(SIZE + 1, "values", input_values=b"\0" * 4)]),
    ],
    ids=["skips a revision", "skips an id", "vector of the wrong size"],
)
def test_a_change_that_does_not_fit_changes_nothing(revision, rows):
    model = llama(tied=True)
    vocabulary = Vocabulary(model, SIZE, 8)
    with pytest.raises(ValueError):  # noqa: PT011  # three messages
        vocabulary.grow(revision, rows)
    assert (vocabulary.size, vocabulary.revision) == (SIZE, 0)
    assert logits(model, [1]).shape[1] == SIZE


def test_ids_that_must_not_be_generated_add_up_over_revisions():
    vocabulary = Vocabulary(llama(tied=True), SIZE, 8)
    vocabulary.grow(1, [row(SIZE), row(SIZE + 1, generable=True)])
    vocabulary.grow(2, [row(SIZE + 2)])
    assert [r.forbidden for r in vocabulary.revisions] == [(), (SIZE,), (SIZE, SIZE + 2)]
    assert [r.size for r in vocabulary.revisions] == [SIZE, SIZE + 2, SIZE + 3]
