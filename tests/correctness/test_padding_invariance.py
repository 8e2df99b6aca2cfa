"""Padding changes nothing: any padding of a batch, by both services, float32.

Every call has a cache salt of its own. A call that reuses what another computed
takes other chunks through the model, which moves last bits whether anything is
padded or not; that is measured in `test_batch_invariance.py`. Where a prompt
is cut into chunks depends on the time that steps take, which moves last bits too:
the bound is relative to the largest logit, as in `tests/parity/test_engine.py`,
because the weights of these checkpoints are large. The absolute difference is
recorded.
"""

import random
from itertools import count

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.services import Services

BOUND = 1e-5
NEW = 4

ROWS = st.lists(
    st.lists(st.integers(0, VOCABULARY_SIZE - 1), min_size=1, max_size=24), min_size=1, max_size=6
)


def sized(examples: int, full: int):
    return pytest.mark.parametrize(
        "examples",
        [
            pytest.param(examples, id="ci"),
            pytest.param(full, id="full", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
        ],
    )


def padded(rows: list[list[int]], extra: int, side: str, pad_id: int) -> dict[str, np.ndarray]:
    """Pads rows by hand, to `extra` more places than the longest has."""
    width = max(map(len, rows)) + extra
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        ids[index, start : start + len(row)] = row
        mask[index, start : start + len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@sized(15, 300)
def test_logits_do_not_depend_on_padding(examples, services: Services, record_property):
    salts = (f"call {index}" for index in count())
    seen = {"batches": 0, "rows": 0, "largest": 0.0}

    with services.client() as client:

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            rows=ROWS,
            extra=st.integers(0, 40),
            side=st.sampled_from(["left", "right"]),
            pad_id=st.integers(0, VOCABULARY_SIZE - 1),
        )
        def same(rows, extra, side, pad_id):
            options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": []}
            ragged = client.model.generate(
                rows, output_logits=True, cache_salt=next(salts), **options
            )
            batch = padded(rows, extra, side, pad_id)
            out = client.model.generate(
                batch, output_logits=True, cache_salt=next(salts), **options
            )
            assert out.sequences == ragged.sequences
            difference = float(np.abs(out.logits - ragged.logits).max())
            seen["largest"] = max(seen["largest"], difference)
            scale = max(1.0, float(np.abs(ragged.logits).max()))
            assert difference <= BOUND * scale
            with client.model.open_session(batch, cache_salt=next(salts)) as session:
                first = np.abs(session.logits - ragged.logits[:, 0]).max()
            seen["largest"] = max(seen["largest"], float(first))
            assert first <= BOUND * scale
            seen["batches"] += 1
            seen["rows"] += len(rows)

        same()
    for name, value in seen.items():
        record_property(name, value)
    print(seen)
    assert seen["rows"] > seen["batches"]


@sized(15, 300)
def test_masks_and_positions_are_those_of_hugging_face(
    examples, services: Services, record_property
):
    theirs = AutoTokenizer.from_pretrained(services.checkpoint)
    if theirs.pad_token is None:
        theirs.pad_token = theirs.eos_token
    words = [
        "the",
        "capital",
        "of",
        "France",
        "is",
        "Paris",
        "one",
        "two",
        "three",
        "a",
        "tokenizer",
        "turns",
        "text",
        "into",
        "ids",
    ]
    generator = random.Random(examples)
    with services.client() as client:
        for _ in range(examples):
            texts = [
                " ".join(generator.choices(words, k=generator.randint(1, 12)))
                for _ in range(generator.randint(1, 6))
            ]
            for side in ("left", "right"):
                ours = client.tokenizer.encode(texts, padding="longest", padding_side=side)
                expected = theirs(texts, padding=True, padding_side=side, return_tensors="np")
                mask = expected["attention_mask"]
                np.testing.assert_array_equal(ours.attention_mask, mask)
                np.testing.assert_array_equal(
                    np.where(mask, ours.input_ids, -1), np.where(mask, expected["input_ids"], -1)
                )
                positions = mask.cumsum(-1) - 1
                positions[mask == 0] = 1
                np.testing.assert_array_equal(ours.position_ids, positions)
    record_property("batches", 2 * examples)
