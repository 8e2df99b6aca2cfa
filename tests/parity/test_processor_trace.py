"""The trace of processors: the score of the chosen token after each, by Hugging Face's classes."""

import json

import pytest
import torch

from model_service.engine.sampling import processors
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import (
    CloseSession,
    OpenSession,
    SequenceSpec,
    SessionAnswer,
    StepRow,
    StepSession,
)
from model_service.protocol.generation import ProcessorTrace, ScoreSelection
from model_service.protocol.parameters import GenerationConfig
from model_service.protocol.processor_arguments import ProcessorSpec
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.engine_harness import array, scores_of

from .test_pipelines import PARTS, PROMPT, random_logits, sequence, specs

TRACE = ScoreSelection(logits=True, scores=True, amount="full", processor_trace=True)
NAMES = ("repetition_penalty", "suppress_tokens", "temperature", "top_k", "renormalize_logits")


def expected_trace(ids, logits, token_id, names=NAMES) -> list[tuple[str, float]]:
    row, trace = logits[None].clone(), []
    for name in names:
        row = PARTS[name][1]()(torch.tensor([ids]), row)
        trace.append((name, pytest.approx(float(row[0, token_id]), abs=1e-5)))
    return trace


def traced(position) -> list[tuple[str, float]]:
    return [(entry.processor, entry.score) for entry in position.processor_trace]


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ()])
def test_every_generated_token_has_its_score_after_each_processor(pair_of, names):
    engine = pair_of("llama").engine
    submitted = engine.submit(
        [PROMPT],
        selection=TRACE,
        max_new_tokens=5,
        do_sample=True,
        top_k=0,
        processors=specs(names),
    )
    ids = list(PROMPT)
    for position in scores_of(engine.drain(), submitted):
        logits = torch.from_numpy(array(position.logits))
        assert traced(position) == expected_trace(ids, logits, position.token_id, names)
        if names:
            final = torch.from_numpy(array(position.scores))[position.token_id]
            assert traced(position)[-1][1] == float(final)
        ids.append(position.token_id)


def test_tokens_that_were_given_are_traced_as_if_they_had_been_chosen(pair_of):
    engine = pair_of("llama").engine
    selection = ScoreSelection(logits=True, amount="full", processor_trace=True, positions="all")
    submitted = engine.submit(
        [PROMPT],
        prompt_selection=selection,
        max_new_tokens=1,
        do_sample=True,
        top_k=0,
        processors=specs(NAMES),
    )
    (event,) = [e for e in engine.drain() if e.request_id == submitted]
    assert [p.position for p in event.prompt_scores] == list(range(1, len(PROMPT)))
    for position in event.prompt_scores:
        logits = torch.from_numpy(array(position.logits))
        ids = PROMPT[: position.position]
        assert traced(position) == expected_trace(ids, logits, PROMPT[position.position])


def test_a_step_is_traced_when_the_server_chooses(pair_of):
    engine = pair_of("llama").engine
    config = engine.config(do_sample=True, top_k=0, processors=specs(NAMES))
    engine.handle(
        OpenSession("t", [SequenceSpec(PROMPT, 3)], config, 0, 64, TRACE, request_id=9001)
    )
    (opened,) = engine.drain()
    assert traced(opened.rows[0].scores[0]) == [], "no token is chosen yet"
    engine.handle(StepSession("t", [StepRow([17], None)], TRACE, sample=True, request_id=9002))
    (answer,) = engine.drain()
    assert isinstance(answer, SessionAnswer)
    (position,) = answer.rows[0].scores
    logits = torch.from_numpy(array(position.logits))
    engine.handle(CloseSession("t", request_id=9003))
    engine.drain()
    chosen = answer.rows[0].sampled_token_id
    assert traced(position) == expected_trace([*PROMPT, 17], logits, chosen)


def test_selected_ids_are_traced_where_no_token_is_chosen(pair_of):
    engine = pair_of("llama").engine
    config = engine.config(do_sample=True, top_k=0, processors=specs(NAMES))
    wanted = ScoreSelection(
        logits=True, scores=True, amount="top_k", top_k=3, logsumexp=True, processor_trace=True
    )
    full = ScoreSelection(logits=True, amount="full")
    answers = []
    for number, selection in enumerate((wanted, full), start=9011):
        opening = OpenSession(
            "s", [SequenceSpec(PROMPT, 3)], config, 0, 64, selection, request_id=number
        )
        engine.handle(opening)
        (answer,) = engine.drain()
        engine.handle(CloseSession("s", request_id=number + 10))
        engine.drain()
        answers.append(answer.rows[0].scores[0])
    position, whole = answers
    row = torch.from_numpy(array(whole.logits))[None].clone()
    selected = [token.token_id for token in position.tokens]
    for entry, name in zip(position.processor_trace, NAMES, strict=True):
        row = PARTS[name][1]()(torch.tensor([PROMPT]), row)
        assert (entry.processor, entry.score) == (name, None)
        assert entry.token_scores == pytest.approx(row[0, selected].tolist(), abs=1e-5)
        assert entry.logsumexp == pytest.approx(float(row[0].double().logsumexp(-1)), abs=1e-5)


def test_what_keeps_forbidden_ids_out_counts_as_part_of_the_processor_before_it():
    config = {
        "max_new_tokens": 5,
        "do_sample": True,
        "top_k": 0,
        "processors": (
            ProcessorSpec("suppress_tokens", json.dumps({"token_ids": [3]})),
            ProcessorSpec("temperature", json.dumps({"temperature": 0.5})),
        ),
    }
    seq = sequence(GenerationConfig(**config))
    seq.rebind(RevisionRows(VOCABULARY_SIZE, forbidden=(8,)))

    def trace_of(token_id: int) -> list[ProcessorTrace]:
        return processors.trace(seq.choosing, seq.token_ids, random_logits(0), token_id)

    trace = trace_of(8)
    assert [entry.processor for entry in trace] == ["suppress_tokens", "temperature"]
    assert [entry.score for entry in trace] == [-torch.inf, -torch.inf]
    assert trace_of(9)[0].score == float(random_logits(0)[9])
