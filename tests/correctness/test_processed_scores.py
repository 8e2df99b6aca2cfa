"""Scores after all processors and warpers against Hugging Face's own list, in its own order."""

import torch
from hypothesis import strategies as st
from transformers import GenerationConfig as HFGenerationConfig

from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.correctness.rows import sequence
from tests.correctness.sizes import for_examples, sizes
from tests.parity.test_processors import (
    NEW,
    PROMPT,
    assert_equal_scores,
    mixes,
    their_options,
    token_ids,
)
from tests.sequence_factory import scores


@sizes("examples", 100, 5_000)
def test_any_mix_equals_hugging_faces_processors_in_its_order(pair_of, examples):
    model = pair_of("llama").model

    def check(config, new, prompt_length, seed):
        if not config.get("min_new_tokens"):  # 0 is how ours says that it was not given
            config.pop("min_new_tokens", None)
        prompt = PROMPT[:prompt_length]
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(VOCABULARY_SIZE, generator=generator) * 4
        seq = sequence(VOCABULARY_SIZE, prompt, new, max_new_tokens=NEW, **config)
        got = scores(seq, logits)
        theirs = HFGenerationConfig(**their_options(config), max_length=len(prompt) + NEW)
        theirs = model._prepare_generated_length(
            theirs,
            has_default_max_length=False,
            has_default_min_length=True,
            model_input_name="input_ids",
            input_ids_length=len(prompt),
            inputs_tensor=None,
        )
        model._prepare_special_tokens(theirs, device="cpu")
        built = model._get_logits_processor(
            theirs,
            input_ids_seq_length=len(prompt),
            encoder_input_ids=torch.tensor([prompt]),
            device="cpu",
        )
        try:
            expected = built(torch.tensor([prompt + new]), logits[None].clone())[0]
        except ValueError:  # overflowed: they raise, ours leaves the row to the sampler's checks
            assert not got.max().isfinite()
            return
        if expected.isnan().any():  # overflowed as well; the sampler ends such a row
            assert torch.equal(got.isnan(), expected.isnan())
            return
        assert_equal_scores(got, expected, 1e-6)

    cases = st.tuples(
        mixes,
        st.lists(token_ids | st.sampled_from(PROMPT), max_size=9),
        st.sampled_from([1, 2, len(PROMPT)]),
        st.integers(0, 2**31),
    )
    for_examples(examples, cases, lambda case: check(*case))
