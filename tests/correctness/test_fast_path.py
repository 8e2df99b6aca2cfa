"""The sampler's fast path against Hugging Face's classes, over configurations and logits."""

import torch
from hypothesis import strategies as st

from model_service.engine.sampling import processors
from model_service.engine.sampling.row_processors import RowProcessors
from tests.correctness.rows import (
    choose_all,
    kinds,
    own_processor_configs,
    processor_configs,
    random_logits,
    sequence,
    token_ids,
    warper_configs,
)
from tests.correctness.sizes import for_examples, sizes

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
            choose_all(case["logits"], [case["new_sequence"]()], case["forbidden"], wants_scores)[0]
            for wants_scores in (False, True)
        )
        assert (fast.token_id, fast.failure) == (exact.token_id, exact.failure)

    for_examples(examples, cases(), check)


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
def test_processors_on_a_row_equal_hugging_faces_to_the_bit_token_after_token(examples):
    def check(case):
        seq = case["sequence"]
        ours = RowProcessors(seq, case["forbidden"])
        for token_id in [*case["new"], 0]:
            got = ours(case["logits"], seq.token_ids)
            assert torch.equal(got, processors.scores(seq, case["logits"], case["forbidden"]))
            seq.token_ids.append(token_id)

    for_examples(examples, processor_cases(), check)
