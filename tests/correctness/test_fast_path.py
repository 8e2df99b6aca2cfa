"""The sampler's fast path against Hugging Face's classes, over configurations and logits."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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

EXAMPLES = {"ci": 400, "full": 20_000}
SIZES = pytest.mark.parametrize(
    "examples",
    [
        EXAMPLES["ci"],
        pytest.param(EXAMPLES["full"], marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
    ids=["ci", "full"],
)
VOCABULARIES = (1, 2, 40, 300, 3000)


def run(examples: int, strategy: st.SearchStrategy, check) -> None:
    """Runs a check over so many draws of a strategy."""
    given(strategy)(
        settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(check)
    )()


@st.composite
def cases(draw, size_of=st.sampled_from(VOCABULARIES)):
    size = draw(size_of)
    config = draw(warper_configs(size)) if draw(st.booleans()) else {"top_k": 0}
    if size > 12 and draw(st.booleans()):
        config |= draw(processor_configs(size)) | draw(own_processor_configs(size))
    ids = st.lists(token_ids(size), max_size=9)
    prompt = draw(ids.filter(bool))
    logits = random_logits(
        draw(st.integers(0, 2**32)), size, draw(st.sampled_from([0.5, 3.0, 20.0])), draw(kinds)
    )
    if draw(st.booleans()):
        logits[:, size // 3 :: 7] = logits.min() - draw(st.sampled_from([0.0, 1e4]))
    return {
        "logits": logits,
        "sequence": lambda: sequence(size, prompt, new, seed, **config),
        "config": config,
        "forbidden": draw(st.sets(st.integers(0, size - 1), max_size=3)) if size > 12 else (),
    } | {"new": (new := draw(ids)), "seed": (seed := draw(st.integers(0, 2**63 - 1)))}


@SIZES
def test_the_fast_path_chooses_what_hugging_faces_own_classes_do(examples):
    def check(case):
        fast, exact = (
            choose_all(case["logits"], [case["sequence"]()], case["forbidden"], wants_scores)[0]
            for wants_scores in (False, True)
        )
        assert (fast.token_id, fast.failure) == (exact.token_id, exact.failure)

    run(examples, cases(), check)
