"""The SynthID watermark against Hugging Face's processor, which remembers every call."""

from itertools import count

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import SynthIDTextWatermarkLogitsProcessor

from model_service.engine.sampling.synth_id import SynthIdWatermarkProcessor
from model_service.protocol import (
    CloseSession,
    ForkSession,
    OpenSession,
    SequenceSpec,
    StepRow,
    StepSession,
    TruncateSession,
)
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.processor_arguments import SynthIdWatermark
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import array, scores_of, tokens_of

from .test_processors import PROMPT

WATERMARK = SynthIdWatermark(ngram_len=3, keys=(654, 400, 836), context_history_size=4)
SCORES = ScoreSelection(logits=True, scores=True, amount="full")
REQUEST_IDS = count(50_000)
V = 20


def theirs(watermark: SynthIdWatermark) -> SynthIDTextWatermarkLogitsProcessor:
    return SynthIDTextWatermarkLogitsProcessor(
        ngram_len=watermark.ngram_len,
        keys=list(watermark.keys),
        sampling_table_size=watermark.sampling_table_size,
        sampling_table_seed=watermark.sampling_table_seed,
        context_history_size=watermark.context_history_size,
        device=torch.device("cpu"),
        skip_first_ngram_calls=watermark.skip_first_ngram_calls,
    )


def called_per_token(watermark, prompt, new, logits) -> list[torch.Tensor]:
    """What theirs returns for each prefix of `new`, in turn."""
    processor = theirs(watermark)
    return [
        processor(torch.tensor([prompt + new[:length]]), row[None].clone())[0]
        for length, row in enumerate(logits)
    ]


@settings(max_examples=150, deadline=None)
@given(
    watermark=st.builds(
        SynthIdWatermark,
        ngram_len=st.integers(2, 6),
        keys=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4).map(tuple),
        context_history_size=st.integers(1, 5),
        sampling_table_seed=st.sampled_from([0, 5, 2**63 - 1]),
        sampling_table_size=st.integers(1, 300),
        skip_first_ngram_calls=st.booleans(),
    ),
    # Few ids, so that contexts repeat.
    new=st.lists(st.integers(0, 2), max_size=14),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**31),
)
def test_any_order_of_calls_gives_what_theirs_gives_in_turn(watermark, new, order, seed):
    prompt = [1, 0, 2]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(new) + 1, V, generator=generator) * 3
    expected = called_per_token(watermark, prompt, new, logits)
    ours = SynthIdWatermarkProcessor(watermark, len(prompt))
    lengths = [*range(len(new) + 1), *range(len(new) + 1)]
    order.shuffle(lengths)
    for length in lengths:
        ids = torch.tensor([prompt + new[:length]])
        got = ours(ids, logits[length][None].clone())[0]
        torch.testing.assert_close(got, expected[length], rtol=1e-6, atol=1e-6)


def test_sampled_rows_have_the_scores_of_theirs_whoever_is_beside_them(pair_of):
    engine = pair_of("llama").engine
    config = {"do_sample": True, "top_k": 0, "temperature": 0.8}
    others = [{"synth_id_watermark": SynthIdWatermark(2, (9,))}, {}]
    submitted = engine.submit(
        [PROMPT, PROMPT[:2]],
        seeds=[1, 2],
        selection=SCORES,
        max_new_tokens=12,
        synth_id_watermark=WATERMARK,
        **config,
    )
    for other in others:
        engine.submit([PROMPT], seeds=[1], max_new_tokens=12, **config, **other)
    events = engine.drain()
    for row, prompt in enumerate([PROMPT, PROMPT[:2]]):
        positions = scores_of(events, submitted, row)
        drawn = tokens_of(events, submitted, 2)[row]
        logits = [torch.from_numpy(array(p.logits)) / 0.8 for p in positions]
        expected = called_per_token(WATERMARK, prompt, drawn[:-1], logits)
        for position, wanted in zip(positions, expected, strict=True):
            got = torch.from_numpy(array(position.scores))
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


class Driven:
    """A watermarked session."""

    def __init__(self, pair, prompt, name="w") -> None:
        self.engine = pair.engine
        self.name = name
        self.tokens = list(prompt)
        self.prompt_length = len(prompt)

    def do(self, kind, *arguments):
        self.engine.handle(kind(self.name, *arguments, request_id=next(REQUEST_IDS)))
        *_, event = self.engine.drain()
        return event

    def open(self) -> None:
        config = self.engine.config(synth_id_watermark=WATERMARK)
        self.do(OpenSession, [SequenceSpec(self.tokens, 0)], config, 0, 64, SCORES)

    def step(self, token_id: int, look_ahead: bool = False) -> None:
        """Steps, and compares the scores with theirs, called for every token from the prompt on."""
        rows = [StepRow([token_id], None)]
        (row,) = self.do(StepSession, rows, SCORES, True, False, look_ahead).rows
        (position,) = row.scores
        tokens = [*self.tokens, token_id]
        logits = torch.from_numpy(array(position.logits))
        new = tokens[self.prompt_length :]
        every = [torch.zeros(VOCABULARY_SIZE)] * len(new) + [logits]
        *_, expected = called_per_token(WATERMARK, tokens[: self.prompt_length], new, every)
        got = torch.from_numpy(array(position.scores))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        if not look_ahead:
            self.tokens = tokens


@pytest.fixture
def session(pair_of):
    driven = Driven(pair_of("llama"), PROMPT)
    driven.open()
    yield driven
    driven.do(CloseSession)


def test_a_session_that_is_cut_and_looked_ahead_in_watermarks_what_its_tokens_say(session):
    for token_id in (5, 6, 5, 6, 5, 6):  # its context repeats
        session.step(token_id)
    session.step(9, look_ahead=True)
    session.step(6)
    session.do(TruncateSession, [len(PROMPT) + 2])
    del session.tokens[len(PROMPT) + 2 :]
    session.step(7)
    session.step(5)


def test_forks_watermark_what_their_own_tokens_say(session, pair_of):
    for token_id in (5, 6, 5):
        session.step(token_id)
    session.do(ForkSession, ["fork"], [0])
    fork = Driven(pair_of("llama"), PROMPT, "fork")
    fork.tokens = list(session.tokens)
    for ours, other in ((6, 8), (5, 8), (6, 8), (5, 9)):
        session.step(ours)
        fork.step(other)
    fork.do(CloseSession)
