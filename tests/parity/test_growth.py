"""New ids of every architecture of `docs/models.md`, float32: rows, logits and tokens.

The oracle of rows is numpy (`row_oracle`), that of logits is Hugging Face's model
whose embeddings were resized and got the same rows.
"""

import numpy as np
import pytest
import torch
from transformers import OPTConfig, PreTrainedModel

from model_service.generation import ScoreSelection
from model_service.messages import GrowVocabulary, NewRow, Rejected, VocabularyGrown
from tests import architectures
from tests.architectures import TESTED, Architecture
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import InprocEngine, tokens_of
from tests.pairs import Pair
from tests.row_oracle import OracleRows

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
    engine.handle(GrowVocabulary(10**6 + revision, revision, rows))
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


# Looks up ids in a second table, for which a revision has no rows.
WITH_A_SECOND_TABLE = "gemma3n"


@pytest.mark.parametrize("name", [name for name in KINDS if name != WITH_A_SECOND_TABLE])
def test_every_initialization_gives_the_rows_of_the_rule_and_the_logits_of_hugging_face(
    name, tmp_path
):
    pair = make_pair(KINDS[name], tmp_path)
    engine, oracle = pair.engine, rows_of(pair.model)
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

    theirs = Pair(pair.folder, resized(pair.model, oracle), engine)
    size = VOCABULARY_SIZE
    prompts = [[*prompt, size + index, size + 4] for index, prompt in enumerate(PROMPTS)]
    prompts += [[size + 3, 2, size + 5, size + 6, size + 1]]
    tokens, logits = run(engine, prompts, 2, "new")
    for row, prompt in enumerate(prompts):
        expected = theirs.generate(prompt, NEW)
        assert tokens[row] == expected.token_ids
        assert_close(logits[row], expected.logits)


def test_a_model_with_a_second_table_serves_its_base_and_says_why_it_does_not_grow(tmp_path):
    pair = make_pair(KINDS[WITH_A_SECOND_TABLE], tmp_path)
    row = NewRow(VOCABULARY_SIZE, "mean", True)
    pair.engine.handle(GrowVocabulary(7, 1, [row]))
    (refusal,) = pair.engine.drain()
    assert isinstance(refusal, Rejected)
    assert (
        "looks up ids elsewhere than in its embedding" in refusal.failure.arguments["description"]
    )
    pair.engine.handle(GrowVocabulary(8, 1, []))  # a revision without tokens, such as of roles
    (event,) = pair.engine.drain()
    assert (event.revision, event.size) == (1, VOCABULARY_SIZE)
    expected = [pair.generate(prompt, NEW).token_ids for prompt in PROMPTS]
    assert pair.engine.generate(PROMPTS, max_new_tokens=NEW, revision=1) == expected
