"""The sampler's fast path against Hugging Face's classes, over configurations and logits."""

import torch
from hypothesis import strategies as st

from model_service.engine.sampling.candidates import Candidates
from model_service.engine.sampling.row_processors import RowProcessors
from model_service.engine.sampling.score_rows import ScoreRows
from model_service.engine.sampling.warpers import asked, warp
from model_service.engine.sequences.sequence import Sequence
from tests.correctness.rows import (
    kinds,
    own_processor_configs,
    processor_configs,
    random_logits,
    sequence,
    token_ids,
    warper_configs,
)
from tests.correctness.sizes import for_examples, sizes
from tests.sequence_factory import choose, scores

VOCABULARIES = (1, 2, 40, 300, 3000)


@st.composite
def cases(draw) -> dict:
    """A row of logits, and a maker of equal sequences to choose for."""
    size = draw(st.sampled_from(VOCABULARIES))
    config = draw(warper_configs(size)) if draw(st.booleans()) else {"top_k": 0}
    forbidden = set()
    if size > 12 and draw(st.booleans()):
        config |= draw(processor_configs(size)) | draw(own_processor_configs(size))
        forbidden = draw(st.sets(st.integers(0, size - 1), max_size=3))
    tokens = st.lists(token_ids(size), max_size=9)
    prompt, new = draw(tokens.filter(bool)), draw(tokens)
    seed = draw(st.integers(0, 2**63 - 1))
    logits = random_logits(
        draw(st.integers(0, 2**32)), size, draw(st.sampled_from([0.5, 3.0, 20.0])), draw(kinds)
    )
    if draw(st.booleans()):  # a part far below the rest
        logits[:, size // 3 :: 7] = logits.min() - draw(st.sampled_from([0.0, 1e4]))
    return {
        "logits": logits,
        "new_sequence": lambda: sequence(size, prompt, new, seed, **config),
        "forbidden": forbidden,
    }


@sizes("examples", 400, 20_000)
def test_the_fast_path_chooses_what_hugging_faces_own_classes_do(examples):
    def check(case):
        fast, exact = (
            choose(
                case["logits"],
                [case["new_sequence"]()],
                case["forbidden"],
                wants_scores=wants_scores,
            )[0]
            for wants_scores in (False, True)
        )
        assert (fast.token_id, fast.failure) == (exact.token_id, exact.failure)

    for_examples(examples, cases(), check)


@st.composite
def warper_cases(draw) -> tuple:
    size = draw(st.sampled_from([2, 40, 300, 3000]))
    scale = draw(st.sampled_from([0.5, 3.0, 20.0]))
    logits = random_logits(draw(st.integers(0, 2**32)), size, scale, draw(kinds))[0]
    return logits, draw(warper_configs(size)), draw(st.sampled_from([64, 256]))


@sizes("examples", 400, 20_000)
def test_what_is_certain_is_kept_and_what_is_not_possible_is_removed(examples):
    """Of every id, not only of the one that happens to be drawn."""

    def check(case):
        logits, options, width = case
        seq = sequence(len(logits), **options)
        kept = scores(seq, logits) > -torch.inf
        config = seq.choosing.config
        found = Candidates.find(ScoreRows(logits[None]), [0], [config.temperature], width)
        warp(found, [config], [asked(config)])
        if found.undecided:
            return
        count = min(width, len(logits))
        ids = found.ids[0, :count]
        assert kept[ids][found.certain[0, :count]].all()
        assert not kept[ids][~found.possible[0, :count]].any()
        tail = kept.index_fill(0, ids, False)
        assert found.tail_possible or not tail.any()
        assert not found.tail_certain or kept.all()

    for_examples(examples, warper_cases(), check)


class OnTheRow:
    """Scores of a sequence's next token by the processors that change a row in place."""

    def __init__(self, seq: Sequence, forbidden=()) -> None:
        choosing = seq.choosing
        self._processors = RowProcessors(choosing.config, choosing.for_processors(), forbidden)

    def __call__(self, logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
        row = logits.clone()
        self._processors(row, ids)
        return row


def test_biases_of_one_id_are_summed_in_hugging_faces_order():
    """In float32 the order of these sums shows."""
    biases = (((3, 2, 1), 1e8), ((2, 1), -1e8), ((4, 3, 2, 1), 0.25), ((1,), 0.3), ((0, 1), 7.0))
    seq = sequence(20, (4, 3, 2), sequence_bias=biases)
    logits = random_logits(1, 20)[0]
    got = OnTheRow(seq)(logits, seq.token_ids)
    assert torch.equal(got, scores(seq, logits))
    assert got[1] != logits[1]


@st.composite
def processor_cases(draw) -> dict:
    size = draw(st.sampled_from([20, 300]))
    config = draw(processor_configs(size)) | draw(own_processor_configs(size))
    tokens = st.lists(token_ids(size), max_size=12)
    return {
        "sequence": sequence(size, draw(tokens.filter(bool)), **config),
        "new": draw(tokens),
        "logits": random_logits(draw(st.integers(0, 2**32)), size, kind=draw(kinds))[0],
        "forbidden": tuple(draw(st.sets(st.integers(0, size - 1), max_size=3))),
    }


@sizes("examples", 150, 5_000)
def test_processors_on_a_row_equal_hugging_faces_to_the_bit_whatever_becomes_of_its_tokens(
    examples,
):
    def check(case):
        seq, logits, forbidden = case["sequence"], case["logits"], case["forbidden"]
        ours = OnTheRow(seq, forbidden)
        for token_id in [*case["new"], 0]:
            got = ours(logits, seq.token_ids)
            assert torch.equal(got, scores(seq, logits, forbidden))
            if token_id == 3 and seq.num_new_tokens > 1:  # cut and gone another way
                seq.token_ids[-2:] = [8, 9]
            seq.token_ids.append(token_id)

    for_examples(examples, processor_cases(), check)
