import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from model_service.engine.layers import growing_embedding
from model_service.engine.layers.growing_head import BLOCK_ROWS
from model_service.engine.vocabulary.vocabulary import Vocabulary
from model_service.protocol import NewRow
from tests.row_oracle import OracleRows

ROWS, SIZE, WIDTH = 40, 37, 16  # a checkpoint padded beyond its tokenizer


def llama(tied: bool, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval().to(dtype)


def gpt_neox() -> GPTNeoXForCausalLM:
    """A model whose output layer has a bias."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=SIZE,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = GPTNeoXForCausalLM(config).eval()
    model.lm_head.bias = torch.nn.Parameter(torch.randn(SIZE))
    return model


def oracle(model, dtype: str = "float32") -> OracleRows:
    """Copies what a model has before anything takes it over."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head.weight is embedding.weight
    return OracleRows(
        embedding.weight.detach()[:SIZE].float().numpy().copy(),
        None if is_tied else head.weight.detach()[:SIZE].float().numpy().copy(),
        dtype,
        None if head.bias is None else head.bias.detach().float().numpy().copy(),
    )


def row(token_id: int, initialization: str = "mean", **values) -> NewRow:
    return NewRow(token_id, initialization, values.pop("generable", False), **values)


def vector(seed: int, width: int = WIDTH) -> bytes:
    return np.random.default_rng(seed).standard_normal(width).astype("<f4").tobytes()


def one_of_each(start: int, tied: bool) -> list[NewRow]:
    output = b"" if tied else vector(2)
    return [
        row(start, "mean_of_pieces", previous_ids=[4, 9, 9, 11]),
        row(start + 1, "mean"),
        row(start + 2, "copy", copy_token_id=3),
        row(start + 3, "zero"),
        row(start + 4, "values", input_values=vector(1), output_values=output),
    ]


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def assert_rows_are(model, expected: OracleRows) -> None:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for token_id in range(SIZE, expected.size):
        rows = [embedding.weight[token_id], head.row(token_id)]
        for got, table in zip(rows, expected.tables, strict=False):
            assert got.dtype == embedding.weight.dtype
            assert np.array_equal(got.detach().float().numpy(), table[token_id]), token_id
        if head.bias is not None:
            assert float(head.bias_of(token_id)) == float(expected.tables[2][token_id][0])


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
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_initialization_gives_the_documented_rows_to_the_bit(tied, dtype):
    model = llama(tied, getattr(torch, dtype))
    expected = oracle(model, dtype)
    vocabulary = Vocabulary(model, SIZE, 4)
    for revision in range(1, 4):
        rows = one_of_each(vocabulary.size, tied)
        if revision > 1:  # pieces and copies of ids that were added themselves
            first = rows[0].token_id
            rows[0] = row(first, "mean_of_pieces", previous_ids=[SIZE, 2, first - 1, SIZE + 1])
            rows[2] = row(first + 2, "copy", copy_token_id=first - 5)
        for new in rows:
            expected.add(new)
        vocabulary.grow(revision, rows)
    assert_rows_are(model, expected)
    assert vocabulary.added_rows_sha256 == expected.sha256


def test_a_head_with_a_bias_grows_by_the_same_rule():
    model = gpt_neox()
    expected = oracle(model)
    vocabulary = Vocabulary(model, SIZE, 8)
    rows = one_of_each(SIZE, tied=False)
    vocabulary.grow(1, rows)
    for new in rows:
        expected.add(new)
    assert_rows_are(model, expected)
    assert vocabulary.added_rows_sha256 == expected.sha256
    before = logits(model, [1, 2])
    model.lm_head._biases[0] += 1.0
    assert torch.allclose(logits(model, [1, 2])[:, SIZE:], before[:, SIZE:] + 1.0, atol=1e-6)


@tied
def test_trained_vectors_give_what_resizing_in_hugging_face_gives(tied):
    model, theirs = llama(tied), llama(tied)
    inputs, outputs = vector(1), vector(1) if tied else vector(2)
    vocabulary = Vocabulary(model, ROWS, 8)
    vocabulary.grow(1, [row(ROWS, "values", input_values=inputs, output_values=outputs)])
    theirs.resize_token_embeddings(ROWS + 1, mean_resizing=False)
    with torch.no_grad():
        theirs.get_input_embeddings().weight[ROWS] = torch.frombuffer(
            bytearray(inputs), dtype=torch.float32
        )
        theirs.get_output_embeddings().weight[ROWS] = torch.frombuffer(
            bytearray(outputs), dtype=torch.float32
        )
    ids = [1, ROWS, 3]
    assert torch.allclose(logits(model, ids), logits(theirs, ids), atol=1e-6)


def test_output_values_of_a_tied_model_that_differ_are_refused():
    vocabulary = Vocabulary(llama(tied=True), SIZE, 8)
    new = row(SIZE, "values", input_values=vector(1), output_values=vector(2))
    with pytest.raises(ValueError, match="must be unset or equal to input_values"):
        vocabulary.grow(1, [new])
    equal = row(SIZE, "values", input_values=vector(1), output_values=vector(1))
    vocabulary.grow(1, [equal])


def test_the_matrix_of_a_padded_checkpoint_does_not_shrink_and_its_padding_is_reused():
    model = llama(tied=False)
    vocabulary = Vocabulary(model, SIZE, 0)
    assert len(model.get_input_embeddings().weight) == ROWS
    assert vocabulary.num_reserved == ROWS - SIZE
    padding = model.get_input_embeddings().weight[SIZE:].clone()
    vocabulary.grow(1, [row(SIZE, "zero"), row(SIZE + 1, "copy", copy_token_id=1)])
    assert (model.get_input_embeddings().weight[SIZE] == 0).all()
    assert (logits(model, [1])[:, SIZE] == 0).all()
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight[SIZE + 1], weight[1])
    assert not torch.equal(weight[SIZE + 1], padding[1])
    assert (len(weight), model.config.vocab_size) == (ROWS, ROWS)


def test_embedding_and_head_of_other_widths_take_vectors_of_their_own():
    model = llama(tied=False)
    model.lm_head = torch.nn.Linear(8, ROWS, bias=False)
    vocabulary = Vocabulary(model, SIZE, 8)
    with pytest.raises(
        ValueError, match="output_values has 0 values, but a row of this model has 8"
    ):
        vocabulary.grow(1, [row(SIZE, "values", input_values=vector(1))])
    values = {"input_values": vector(1), "output_values": vector(2, 8)}
    vocabulary.grow(1, [row(SIZE, "values", **values), row(SIZE + 1), row(SIZE + 2, "zero")])
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embedding.weight[SIZE].tolist() == np.frombuffer(vector(1), "<f4").tolist()
    assert head.row(SIZE).tolist() == np.frombuffer(vector(2, 8), "<f4").tolist()


@tied
def test_a_new_logit_does_not_depend_on_how_many_ids_came_after(tied):
    model = llama(tied)
    vocabulary = Vocabulary(model, SIZE, 8)
    vocabulary.grow(1, one_of_each(SIZE, tied))
    first = {length: logits(model, [*range(length)])[:, SIZE:] for length in (1, 2, 5, 17)}
    for revision in range(2, 30):
        vocabulary.grow(revision, one_of_each(vocabulary.size, tied))
        for length, before in first.items():
            after = logits(model, [*range(length)])[:, SIZE : SIZE + 5]
            assert torch.equal(after, before)


@tied
def test_a_larger_buffer_is_filled_aside_and_swapped_in_one_moment(tied, monkeypatch):
    monkeypatch.setattr(growing_embedding, "SLICE_BYTES", WIDTH * 4 * 3)  # three rows
    model = llama(tied)
    expected = oracle(model)
    vocabulary = Vocabulary(model, SIZE, 4)
    before, layer = logits(model, [1, 2, 3]), model.get_input_embeddings()
    rows = one_of_each(SIZE, tied)
    slices, weights = 0, [layer.weight]
    for _ in vocabulary.growing(1, rows):
        slices += 1
        assert (vocabulary.revision, vocabulary.size) == (0, SIZE)
        assert torch.equal(logits(model, [1, 2, 3]), before)
        if layer.weight is not weights[-1]:
            weights.append(layer.weight)
    assert slices > SIZE // 3
    assert len(weights) == 2
    for new in rows:
        expected.add(new)
    assert_rows_are(model, expected)
    assert torch.equal(logits(model, [1, 2, 3])[:, :SIZE], before)
    if tied:  # or the old buffer would stay in memory
        assert model.lm_head.weight.data_ptr() == layer.weight.data_ptr()


def test_room_is_made_early_and_rows_that_arrive_meanwhile_are_kept(monkeypatch):
    monkeypatch.setattr(growing_embedding, "SLICE_BYTES", WIDTH * 4)  # one row
    model = llama(tied=True)
    expected = oracle(model)
    vocabulary = Vocabulary(model, SIZE, 8)
    assert not vocabulary.is_short
    for revision in range(1, 8):
        new = row(vocabulary.size, "mean_of_pieces", previous_ids=[revision])
        expected.add(new)
        vocabulary.grow(revision, [new])
    assert vocabulary.is_short
    layer = model.get_input_embeddings()
    old = layer.weight
    vocabulary.make_room()
    new = row(vocabulary.size, "copy", copy_token_id=2)
    expected.add(new)
    vocabulary.grow(8, [new])
    assert layer.weight is old
    while vocabulary.is_short:
        vocabulary.make_room()
    assert layer.weight is not old
    assert vocabulary.num_reserved >= 8 - 1
    assert_rows_are(model, expected)


@tied
@pytest.mark.parametrize("part", ["new_empty", "new_zeros"])
def test_without_memory_for_more_rows_nothing_is_changed(tied, part, monkeypatch):
    model = llama(tied)
    vocabulary = Vocabulary(model, SIZE, 3)
    vocabulary.grow(1, [row(SIZE)])
    before, hashed = logits(model, [1, SIZE]), vocabulary.added_rows_sha256
    rows = [row(SIZE + 1 + index) for index in range(BLOCK_ROWS)]

    def fails(self, *shape):
        raise RuntimeError("can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, part, fails)
        with pytest.raises(RuntimeError, match="memory"):
            vocabulary.grow(2, rows)
    assert (vocabulary.size, vocabulary.revision) == (SIZE + 1, 1)
    assert torch.equal(logits(model, [1, SIZE]), before)
    assert vocabulary.added_rows_sha256 == hashed
    vocabulary.grow(2, rows)
    assert torch.equal(logits(model, [1, SIZE])[:, : SIZE + 1], before)


def test_pieces_may_be_new_rows_themselves():
    model = llama(tied=False)
    vocabulary = Vocabulary(model, SIZE, 8)
    vocabulary.grow(1, [row(SIZE, "values", input_values=vector(3))])
    vocabulary.grow(2, [row(SIZE + 1, "copy", copy_token_id=SIZE)])
    weight, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    assert torch.equal(weight[SIZE + 1], weight[SIZE])
    assert torch.equal(head.row(SIZE + 1), head.row(SIZE))


def test_replicas_agree_to_the_bit_and_on_the_hash_however_many_threads_they_have():
    hashes, threads = set(), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            vocabulary = Vocabulary(llama(tied=False), SIZE, 8)
            vocabulary.grow(1, one_of_each(SIZE, tied=False))
            hashes.add(vocabulary.added_rows_sha256)
    finally:
        torch.set_num_threads(threads)
    assert len(hashes) == 1
    assert hashes != {hashlib.sha256().hexdigest()}


def test_a_mean_is_taken_row_after_row():
    """In any other order, these rows have another sum in float64."""
    model = llama(tied=True)
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[3], weight[20] = 2.0**60, -(2.0**60)  # what comes between is lost
    expected = oracle(model)
    vocabulary = Vocabulary(model, SIZE, 8)
    pieces = list(range(30))
    rows = [row(SIZE), row(SIZE + 1, "mean_of_pieces", previous_ids=pieces)]
    vocabulary.grow(1, rows)
    for new in rows:
        expected.add(new)
    assert_rows_are(model, expected)


@pytest.mark.parametrize(
    ("revision", "rows", "reason"),
    [
        (2, [row(SIZE)], "does not follow"),
        (1, [row(SIZE + 1)], "does not follow"),
        (1, [row(SIZE), row(SIZE + 1, "values", input_values=b"\0" * 4)], "has 1 values"),
        (1, [row(SIZE, "values", input_values=b"\0\0\xc0\x7f" * WIDTH)], "not finite"),
        (1, [row(SIZE, "copy", copy_token_id=SIZE)], "not in"),
        (1, [row(SIZE, "copy", copy_token_id=-1)], "not in"),
        (1, [row(SIZE), row(SIZE + 1, "mean_of_pieces", previous_ids=[1, SIZE])], "not in"),
        (1, [row(SIZE, "mean_of_pieces")], "no pieces"),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing(revision, rows, reason):
    model = llama(tied=True)
    vocabulary = Vocabulary(model, SIZE, 8)
    with pytest.raises(ValueError, match=reason):
        vocabulary.grow(revision, rows)
    assert (vocabulary.size, vocabulary.revision) == (SIZE, 0)
    assert logits(model, [1]).shape[1] == SIZE


def test_values_that_the_type_of_the_weights_does_not_have_are_refused():
    large = np.full(WIDTH, 1e5, "<f4").tobytes()
    vocabulary = Vocabulary(llama(tied=True, dtype=torch.float16), SIZE, 8)
    with pytest.raises(ValueError, match="not finite as float16"):
        vocabulary.grow(1, [row(SIZE, "values", input_values=large)])
    Vocabulary(llama(tied=True, dtype=torch.bfloat16), SIZE, 8).grow(
        1, [row(SIZE, "values", input_values=large)]
    )


@tied
def test_ids_that_have_no_rows_are_masked_and_what_is_added_comes_behind_them(tied):
    model = llama(tied)
    before = logits(model, [1, 2, 3])
    mean = model.get_input_embeddings().weight.detach().double().mean(0)
    vocabulary = Vocabulary(model, ROWS + 2, 1)
    assert (vocabulary.size, vocabulary.num_rows, vocabulary.num_usable) == (ROWS + 2, ROWS, ROWS)
    for revision in range(1, 80):  # beyond a block, and beyond the reserve
        new = row(vocabulary.size, "mean", generable=True)
        vocabulary.grow(revision, [new])
        assert vocabulary.size == ROWS + 2 + revision
    grown = vocabulary.mask(logits(model, [1, 2, 3]).clone())
    assert torch.allclose(grown[:, :ROWS], before, atol=1e-6)
    assert (grown[:, ROWS : ROWS + 2] == -torch.inf).all()
    assert grown[:, ROWS + 2 :].isfinite().all()
    assert torch.allclose(model.get_input_embeddings().weight[ROWS + 2].double(), mean, atol=1e-6)
    assert vocabulary.revisions[-1].forbidden == (ROWS, ROWS + 1)


@pytest.mark.parametrize(
    "new", [{"copy_token_id": ROWS}, {"previous_ids": [1, ROWS]}], ids=["copy", "pieces"]
)
def test_no_row_is_made_from_one_that_is_not_there(new):
    vocabulary = Vocabulary(llama(tied=True), ROWS + 1, 8)
    initialization = "copy" if "copy_token_id" in new else "mean_of_pieces"
    with pytest.raises(ValueError, match=f"from id {ROWS}, for which the model has no row"):
        vocabulary.grow(1, [row(ROWS + 1, initialization, **new)])


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(ValueError, match="has 40 rows, not even half of the 81 ids"):
        Vocabulary(llama(tied=True), 2 * ROWS + 1, 8)


def test_a_model_without_an_output_layer_is_refused():
    model = llama(tied=False)
    with pytest.raises(ValueError, match="no separate output layer"):
        Vocabulary(model.model, SIZE, 8)


def test_ids_that_must_not_be_generated_add_up_over_revisions():
    vocabulary = Vocabulary(llama(tied=True), SIZE, 8)
    vocabulary.grow(1, [row(SIZE), row(SIZE + 1, generable=True)])
    vocabulary.grow(2, [row(SIZE + 2)])
    assert [r.forbidden for r in vocabulary.revisions] == [(), (SIZE,), (SIZE, SIZE + 2)]
    assert [r.size for r in vocabulary.revisions] == [SIZE, SIZE + 2, SIZE + 3]
    for older, newer in pairwise(vocabulary.revisions):
        assert newer.forbidden[: len(older.forbidden)] == older.forbidden
