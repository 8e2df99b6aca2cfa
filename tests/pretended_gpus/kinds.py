"""Every kind of request, by name, and how its answers are compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from torch import Tensor

from lockstep_processors import Arguments, CustomProcessor, Row
from model_service.protocol import SequenceTokens
from model_service.protocol.generation import ScoreSelection
from model_service.protocol.processor_arguments import (
    GreenListWatermark,
    ProcessorSpec,
    SynthIdWatermark,
)
from tests.engine_harness import InprocEngine, array, tokens_of
from tests.parity.test_processors import ENDS, GREEDY, SAMPLED, lengthened, name_of

PROMPT = [3, 5, 7, 9, 11, 2, 4, 6, 5, 7, 12]
PROMPTS = [PROMPT, [5], [9, 8, 7]]
SEEDS = [3, 4, 5]

FULL = ScoreSelection(amount="full", logits=True, scores=True)
TOP = ScoreSelection(
    amount="top_k", top_k=5, logits=True, scores=True, rank=True, entropy=True, logsumexp=True
)
SOME = ScoreSelection(amount="token_ids", token_ids=[5, 9, 300], logits=True, scores=True)


class LastLowered:
    """Lowers the score of the last token."""

    def __init__(self, arguments: Arguments, row: Row) -> None:
        pass

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        lowered = scores.clone()
        lowered[:, input_ids[0, -1]] -= 50.0
        return lowered


class Nothing(Arguments, frozen=True):
    """No arguments."""


LOGITS_PROCESSORS = [CustomProcessor("tests.last_lowered", Nothing, LastLowered)]

PIPELINE = (
    ProcessorSpec("temperature", '{"temperature": 0.7}'),
    ProcessorSpec("top_k", '{"top_k": 20}'),
    ProcessorSpec("tests.last_lowered", "{}"),
)

KINDS: dict[str, dict] = {
    "greedy": {},
    "sampled": {"do_sample": True},
    "sampled from all": {"do_sample": True, "top_k": 0},
    "a high temperature": {"do_sample": True, "top_k": 0, "temperature": 30.0},
    "greedy, all scores": {"selection": FULL},
    "greedy, the best scores": {"selection": TOP},
    "greedy, some scores": {"selection": SOME},
    "sampled, all scores": {"do_sample": True, "selection": FULL},
    "sampled, the best scores": {"do_sample": True, "selection": TOP},
    "drawn as torch": {"do_sample": True, "seed_mode": "torch", "selection": FULL},
    "guidance": {"guidance_scale": 1.5},
    "guidance, sampled": {"guidance_scale": 1.5, "do_sample": True, "selection": FULL},
    "beams": {"num_beams": 2, "selection": FULL},
    "beams, sampled": {"num_beams": 2, "do_sample": True},
    "a pipeline": {"do_sample": True, "processors": PIPELINE},
    "a pipeline, greedy": {"processors": PIPELINE[2:], "selection": TOP},
    "prompt lookup": {"prompt_lookup_num_tokens": 4},
    "prompt lookup, sampled": {"prompt_lookup_num_tokens": 4, "do_sample": True, "top_k": 3},
    "prompt scores": {"repetition_penalty": 1.2, "prompt_selection": FULL},
    "the best prompt scores": {"prompt_selection": TOP},
    "a trace": {
        "repetition_penalty": 1.2,
        "selection": ScoreSelection(amount="full", logits=True, processor_trace=True),
    },
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.5, "do_sample": True},
    "biases": {"logit_bias": ((5, 4.0), (9, -100.0)), "do_sample": True},
    "allowed ids": {"allowed_token_ids": (5, 6, 7), "do_sample": True},
    "a forced prefix": {"forced_prefix": (5, 6)},
    "top_n_sigma": {"do_sample": True, "top_k": 0, "top_n_sigma": 1.0},
    "top_n_sigma, renormalized": {
        **{"do_sample": True, "top_k": 0, "top_n_sigma": 1.5, "renormalize_logits": True},
    },
    "a green list": {"do_sample": True, "green_list_watermark": GreenListWatermark()},
    "SynthID": {
        "do_sample": True,
        "synth_id_watermark": SynthIdWatermark(ngram_len=3, keys=(654, 400, 836)),
    },
    "ends": {"do_sample": True, "eos_token_ids": ENDS, "max_new_tokens": 12},
    **{f"{name_of(config)} {index}": config for index, config in enumerate(GREEDY)},
    **{
        f"sampled, {name_of(config)} {index}": {"do_sample": True, "top_k": 0} | config
        for index, config in enumerate(SAMPLED)
    },
}


@dataclass(slots=True)
class Answer:
    """What a call was told: tokens by row, and the numbers of its distributions in order."""

    tokens: list[list[int]] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def ask(engine: InprocEngine, kinds: Mapping[str, dict]) -> dict[str, Answer]:
    """Lets an engine answer one request of each kind, all of them together."""
    ids = {}
    for name, kind in kinds.items():
        config = {"max_new_tokens": 5, **lengthened(kind, PROMPT)}
        ids[name] = engine.submit(PROMPTS, SEEDS, cache_salt=name, **config)
    events = [event for event in engine.drain() if isinstance(event, SequenceTokens)]
    answers = {}
    for name, request_id in ids.items():
        rows = sorted(
            (event for event in events if event.request_id == request_id),
            key=lambda event: event.row,
        )
        numbers = [*numbers_of([[event.prompt_scores, event.scores] for event in rows])]
        failures = [repr(e.finish.failure) for e in rows if e.finish and e.finish.failure]
        tokens = tokens_of(events, request_id, len(PROMPTS))
        answers[name] = Answer(tokens, numbers, failures)
    return answers


def numbers_of(value: object) -> Iterator[float]:
    """Finds all numbers in an answer, in order, those of full rows too."""
    if isinstance(value, msgspec.Struct):
        value = [getattr(value, name) for name in value.__struct_fields__]
    if isinstance(value, bytes) and value:
        yield from array(value).tolist()
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers_of(item)
    elif isinstance(value, int | float):
        yield value


def assert_equal(answers: Mapping[str, Answer], expected: Mapping[str, Answer]) -> None:
    for name, answer in answers.items():
        assert answer.tokens == expected[name].tokens, name
        assert answer.failures == expected[name].failures == [], name
        np.testing.assert_allclose(
            answer.numbers, expected[name].numbers, rtol=1e-4, atol=1e-4, err_msg=name
        )
