"""New ids of every architecture of `docs/models.md`, float32: rows, logits and tokens.

The oracle of rows is numpy (`row_oracle`), that of logits is Hugging Face's model
whose embeddings were resized and got the same rows.
"""

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file
from transformers import OPTConfig, PreTrainedModel

import checkpoints
from model_service.protocol import GrowVocabulary, NewRow, Rejected, VocabularyGrown
from model_service.protocol.generation import ScoreSelection
from tests import architectures
from tests.architectures import TESTED, Architecture
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import InprocEngine, tokens_of
from tests.pairs import Pair
from tests.row_oracle import OracleRows, rounded

from .test_adapters import save_adapter
from .test_architectures import make_pair
from .test_engine import assert_close, logits_of

NEW = 6
FULL = ScoreSelection(logits=True, amount="full")
PROMPTS = [[3, 5, 7, 9, 11, 2, 4, 6, 8, 10, 12], [5], [9, 8, 7]]

KINDS = {
    **TESTED,
    # Kinds that the table has no row for.
    "narrow embedding": Architecture(
        lambda: OPTConfig(
            **architectures._PLAIN,
            **architectures._POSITIONS,
            ffn_dim=32,
            word_embed_proj_dim=16,
        ),
        "fast",
        "as OPT-350m",
    ),
}


def rows_of(model: PreTrainedModel) -> OracleRows:
    """What Hugging Face's loader read from the checkpoint."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight.data_ptr() == embedding.weight.data_ptr()
    return OracleRows(
        embedding.weight.detach().numpy().copy(),
        None if tied else head.weight.detach().numpy().copy(),
        biases=None if head.bias is None else head.bias.detach().numpy().copy(),
    )


def new_rows(oracle: OracleRows) -> list[list[NewRow]]:
    """Two revisions with every initialization; pieces of the second were added by the first."""
    size, generator = oracle.size, np.random.default_rng(0)

    def values(table: int) -> bytes:
        like = np.stack(oracle.tables[table][:size])
        shape = like.shape[1]
        return generator.normal(like.mean(), like.std(), shape).astype("<f4").tobytes()

    given = {"input_values": values(0)}
    if not oracle.tied:
        given["output_values"] = values(1)

    def new(initialization: str, **options: object) -> NewRow:
        return NewRow(next(ids), initialization, True, **options)

    ids = iter(range(size, size + 10))
    first = [
        new("mean_of_pieces", previous_ids=[5, 7, 7, 9, 100]),
        new("mean"),
        new("copy", copy_token_id=11),
        new("zero"),
        new("values", **given),
    ]
    second = [
        new("mean_of_pieces", previous_ids=[size, 9, size + 4]),
        new("copy", copy_token_id=size + 4),
    ]
    return [first, second]


def resized(model: PreTrainedModel, oracle: OracleRows) -> PreTrainedModel:
    """Gives Hugging Face's model the rows of the oracle."""
    old = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(oracle.size, mean_resizing=False)
    head = model.get_output_embeddings()
    with torch.no_grad():
        places = [model.get_input_embeddings().weight, head.weight]
        if head.bias is not None:
            places.append(head.bias[:, None])
        for place, table in zip(places, oracle.tables, strict=True):
            place[old:] = torch.from_numpy(np.stack(table[old:]))
    return model


def grow(engine: InprocEngine, rows: list[NewRow], revision: int) -> VocabularyGrown:
    engine.handle(GrowVocabulary(revision, rows, request_id=10**6 + revision))
    (event,) = [e for e in engine.drain() if getattr(e, "request_id", 0) == 10**6 + revision]
    assert isinstance(event, VocabularyGrown), event
    return event


def run(engine: InprocEngine, prompts: list[list[int]], revision: int, salt: str):
    """Returns tokens and logits; with a salt of its own nothing computed before is reused."""
    request_id = engine.submit(
        prompts, selection=FULL, max_new_tokens=NEW, revision=revision, cache_salt=salt
    )
    events = engine.drain()
    logits = [logits_of(events, request_id, row) for row in range(len(prompts))]
    return tokens_of(events, request_id, len(prompts)), logits


def check_against(model: PreTrainedModel, engine: InprocEngine) -> None:
    """Grows, and compares with a model that has the rows of revision 0."""
    oracle = rows_of(model)
    before = run(engine, PROMPTS, 0, "before")
    for revision, rows in enumerate(new_rows(oracle), 1):
        for row in rows:
            oracle.add(row)
        event = grow(engine, rows, revision)
        assert event.added_rows_sha256 == oracle.sha256
    assert engine.info.tied_embeddings == oracle.tied

    old = run(engine, PROMPTS, 0, "old")
    assert old[0] == before[0]
    for got, expected in zip(old[1], before[1], strict=True):
        assert torch.equal(got, expected)

    theirs = Pair(Path(), resized(model, oracle), engine)
    size = VOCABULARY_SIZE
    prompts = [[*prompt, size + index, size + 4] for index, prompt in enumerate(PROMPTS)]
    prompts += [[size + 3, 2, size + 5, size + 6, size + 1]]
    tokens, logits = run(engine, prompts, 2, "new")
    for row, prompt in enumerate(prompts):
        expected = theirs.generate(prompt, NEW)
        assert tokens[row] == expected.token_ids
        assert_close(logits[row], expected.logits)


# Looks up ids in a second table, for which a revision has no rows.
WITH_A_SECOND_TABLE = "gemma3n"


@pytest.mark.parametrize("name", [name for name in KINDS if name != WITH_A_SECOND_TABLE])
def test_every_initialization_gives_the_rows_of_the_rule_and_the_logits_of_hugging_face(
    name, tmp_path
):
    pair = make_pair(KINDS[name], tmp_path)
    check_against(pair.model, pair.engine)


@pytest.mark.parametrize("name", ["llama", "gemma2"])  # with a plain head, and a soft-capped one
def test_logits_of_old_ids_stay_equal_to_the_bit_in_every_batch_and_chunk(name, tmp_path):
    folder = make_pair(TESTED[name], tmp_path).folder
    engine = InprocEngine(folder, max_running_sequences=32, prefill_budget_s=0.0)  # small chunks

    def rows(revision: int, salt: str) -> list[torch.Tensor]:
        found = []
        for count in (1, 2, 3, 5, 8, 16, 32):
            prompts = [[7 * row + place for place in range(20 + row)] for row in range(count)]
            ids = [[token % VOCABULARY_SIZE for token in prompt] for prompt in prompts]
            found += run(engine, ids, revision, f"{salt} {count}")[1]
        return found

    before = rows(0, "before")
    for revision in range(1, 4):
        size = VOCABULARY_SIZE + 50 * (revision - 1)
        new = [NewRow(size + index, "copy", False, copy_token_id=index) for index in range(50)]
        grow(engine, new, revision)
    for got, expected in zip(rows(3, "after"), before, strict=True):
        assert got.shape[1] == VOCABULARY_SIZE + 150
        assert torch.equal(got[:, :VOCABULARY_SIZE], expected)


@pytest.mark.filterwarnings("ignore")  # peft's own
def test_rows_are_made_of_the_weights_with_an_adapter_merged(tmp_path):
    base = make_pair(TESTED["llama"], tmp_path / "base")
    adapter = save_adapter(
        base.folder, tmp_path / "adapter", target_modules=["embed_tokens", "q_proj", "lm_head"]
    )
    merged = peft.PeftModel.from_pretrained(base.model, adapter).merge_and_unload().eval()
    engine = InprocEngine(base.folder, adapter_folder=str(adapter))
    check_against(merged, engine)


def test_ids_of_a_padded_checkpoint_take_the_rows_of_its_padding(tmp_path):
    pair = make_pair(TESTED["qwen2"], tmp_path)
    size = VOCABULARY_SIZE - 4
    engine = InprocEngine(pair.folder, vocabulary_size=size, reserved_vocabulary_rows=0)
    runner = engine.engine._runner
    assert len(runner._embedding.weight) == VOCABULARY_SIZE
    oracle = rows_of(pair.model)
    for table in oracle.tables:
        del table[size:]
    oracle.size, oracle._base = size, range(size)
    rows = [
        NewRow(size, "mean", True),
        NewRow(size + 1, "mean_of_pieces", True, previous_ids=[4, 5, 6]),
        NewRow(size + 2, "copy", True, copy_token_id=size - 1),
    ]
    for row in rows:
        oracle.add(row)
    assert grow(engine, rows, 1).added_rows_sha256 == oracle.sha256
    assert len(runner._embedding.weight) == VOCABULARY_SIZE
    with torch.no_grad():  # nothing has to be resized: the rows are there
        for layer, table in zip(
            (pair.model.get_input_embeddings(), pair.model.get_output_embeddings()),
            oracle.tables,
            strict=False,
        ):
            layer.weight[size : size + 3] = torch.from_numpy(np.stack(table[size:]))
    prompts = [[3, size, 5, size + 1], [size + 2]]
    tokens, logits = run(engine, prompts, 1, "new")
    unused = list(range(size + 3, VOCABULARY_SIZE))
    for row, prompt in enumerate(prompts):
        expected = pair.generate(prompt, NEW, suppress_tokens=unused)
        assert tokens[row] == expected.token_ids
        assert_close(logits[row], expected.logits[:, : size + 3])


@pytest.mark.default_model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_the_default_model_are_those_of_its_file_on_every_replica_in_any_grouping(dtype):
    folder = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="model").folder
    weights = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    oracle = OracleRows(rounded(weights, dtype), None, dtype)
    revisions = []
    for number in range(1, 51):
        size, pieces = oracle.size, [number, 7 * number, oracle.size - 1, 49151 - number]
        revisions.append(
            [
                NewRow(size, "mean_of_pieces", False, previous_ids=pieces),
                NewRow(size + 1, "copy", False, copy_token_id=size - number),
                NewRow(size + 2, "values", False, input_values=weights[number].tobytes()),
                NewRow(size + 3, "zero" if number > 1 else "mean", False),
            ]
        )
        for row in revisions[-1]:
            oracle.add(row)
    hashes = []
    for _ in range(2):  # replicas, or a start and the next one
        engine = InprocEngine(folder, dtype=dtype, reserved_vocabulary_rows=64, max_kv_tokens=512)
        if not hashes:
            for revision, rows in enumerate(revisions, 1):
                event = grow(engine, rows, revision)
        else:  # all that has gathered, at once
            for revision, rows in enumerate(revisions, 1):
                engine.handle(GrowVocabulary(revision, rows, request_id=10**6 + revision))
            event = engine.drain()[-1]
        assert (event.revision, event.size) == (50, oracle.size)
        hashes.append(event.added_rows_sha256)
        table = engine.engine._runner._embedding.weight[49152 : oracle.size].float().numpy()
        assert np.array_equal(table, np.stack(oracle.tables[0][49152:]))
        del engine, table  # before there is another of half a gigabyte
    assert hashes == [oracle.sha256] * 2


def test_a_model_with_a_second_table_serves_its_base_and_says_why_it_does_not_grow(tmp_path):
    pair = make_pair(KINDS[WITH_A_SECOND_TABLE], tmp_path)
    row = NewRow(VOCABULARY_SIZE, "mean", True)
    pair.engine.handle(GrowVocabulary(1, [row], request_id=7))
    (refusal,) = pair.engine.drain()
    assert isinstance(refusal, Rejected)
    assert (
        "looks up ids elsewhere than in its embedding" in refusal.failure.arguments["description"]
    )
    # A revision without tokens, such as of roles.
    pair.engine.handle(GrowVocabulary(1, [], request_id=8))
    (event,) = pair.engine.drain()
    assert (event.revision, event.size) == (1, VOCABULARY_SIZE)
    expected = [pair.generate(prompt, NEW).token_ids for prompt in PROMPTS]
    assert pair.engine.generate(PROMPTS, max_new_tokens=NEW, revision=1) == expected
