"""Length limits, with and without padding, against `generate`."""

import numpy as np
import pytest
import torch
from lockstep.v1 import model_service_pb2, tensor_pb2, tokens_pb2

from model_service.front.checks.generation import AskedSequences
from model_service.front.checks.plan import Plan, PlanLimits, plan
from model_service.protocol import Generate
from rpc.errors import ContextLengthExceeded, InvalidField
from tests.checkpoint_factory import CONTEXT_LENGTH, VOCABULARY_SIZE
from tests.engine_harness import tokens_of
from vocabulary import Reference
from wire.prompts import Bounds

from .conftest import Pair

PROMPTS = [[17, 42, 17, 99, 42, 5, 230], [61, 3], [8]]
WIDTH = 7
VOCABULARY = Reference("tiny", 0, "0" * 64, VOCABULARY_SIZE)
LIMITS = PlanLimits(max_sequences_per_call=8, max_selected_tokens=8)
PAD = 0


def matrix(rows, dtype=tensor_pb2.DATA_TYPE_INT64) -> tensor_pb2.Tensor:
    array = np.array(rows, dtype="<i8")
    return tensor_pb2.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())


def padded(prompts) -> tuple[list[list[int]], list[list[int]]]:
    ids = [[PAD] * (WIDTH - len(p)) + p for p in prompts]
    mask = [[0] * (WIDTH - len(p)) + [1] * len(p) for p in prompts]
    return ids, mask


def planned(pair: Pair, config, *, with_padding=True, prompts=PROMPTS):
    if with_padding:
        ids, mask = padded(prompts)
        batch = tokens_pb2.PaddedBatch(input_ids=matrix(ids), attention_mask=matrix(mask))
        prompt = tokens_pb2.PromptBatch(padded_batch=batch)
    else:
        rows = [tokens_pb2.TokenSequence(ids=row) for row in prompts]
        prompt = tokens_pb2.PromptBatch(token_batch=tokens_pb2.TokenBatch(sequences=rows))
    request = model_service_pb2.GenerateRequest(prompt=prompt, generation_config=config)
    bounds = Bounds(LIMITS.max_sequences_per_call, pair.engine.info.context_length)
    return plan(AskedSequences(request, bounds), VOCABULARY, pair.engine.info, LIMITS)


def run(pair: Pair, plan: Plan[Generate]) -> list[list[int]]:
    pair.engine._next_id += 1
    plan.command.request_id = pair.engine._next_id
    pair.engine.handle(plan.command)
    return tokens_of(pair.engine.drain(), plan.command.request_id, len(plan.sequences))


def generate(pair: Pair, **options) -> list[list[int]]:
    """The new tokens of `generate` over the padded batch, without the pads behind an end."""
    ids, mask = padded(PROMPTS)
    with torch.inference_mode():
        output = pair.model.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            pad_token_id=PAD,
            **options,
        )
    return output[:, WIDTH:].tolist()


def until_end(tokens: list[int], ends) -> list[int]:
    for index, token_id in enumerate(tokens):
        if token_id in ends:
            return tokens[: index + 1]
    return tokens


CONFIGS = [
    {"max_length": 16},
    {"max_length": 8},
    {"max_length": 20, "forced_eos_token_ids": {"ids": [7]}},
    {"max_length": 20, "min_length": 12, "eos_token_ids": {"ids": list(range(1, 200))}},
    {"max_new_tokens": 9, "min_length": 10, "eos_token_ids": {"ids": list(range(1, 200))}},
    {"max_length": 14, "forced_bos_token_id": 33},
    {
        "max_length": 14,
        "forced_bos_token_id": 33,
        "begin_suppress_tokens": {"ids": list(range(200))},
    },
]
NAMES = {"eos_token_ids": "eos_token_id", "forced_eos_token_ids": "forced_eos_token_id"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(config))
def test_lengths_that_count_padding_are_those_of_generate(pair_of, config):
    pair = pair_of("llama")
    ours = {"eos_token_ids": {}, **config, "lengths_include_padding": True}
    got = run(pair, planned(pair, ours))
    options = {
        NAMES.get(name, name): value["ids"] if isinstance(value, dict) else value
        for name, value in config.items()
    }
    ends = options.setdefault("eos_token_id", None) or []
    expected = [until_end(row, ends) for row in generate(pair, **options)]
    assert got == expected


@pytest.mark.parametrize("minimum", [0, 2])
def test_min_new_tokens_takes_the_place_of_min_length_as_in_generate(pair_of, minimum):
    pair, ends = pair_of("llama"), list(range(1, 200))
    lengths = {"max_new_tokens": 9, "min_length": 15, "min_new_tokens": minimum}
    plan = planned(
        pair, {**lengths, "eos_token_ids": {"ids": ends}}, with_padding=False, prompts=PROMPTS[:1]
    )
    assert not plan.effective_config.min_length
    expected = pair.generate(
        PROMPTS[0], 9, min_length=15, min_new_tokens=minimum, eos_token_id=ends
    ).token_ids
    assert run(pair, plan) == [expected]
    assert len(expected) < 15 - len(PROMPTS[0])


def test_without_padding_every_row_has_the_lengths_it_has_alone(pair_of):
    pair = pair_of("llama")
    config = {"max_length": 12, "eos_token_ids": {}}
    together = run(pair, planned(pair, config))
    assert [len(row) for row in together] == [12 - len(prompt) for prompt in PROMPTS]
    for prompt, row in zip(PROMPTS, together, strict=True):
        (alone,) = run(pair, planned(pair, config, with_padding=False, prompts=[prompt]))
        assert alone == row
        assert pair.generate(prompt, 12 - len(prompt), eos_token_id=None).token_ids == row


def test_max_length_reserves_and_sizes_what_each_row_needs(pair_of):
    plan = planned(pair_of("llama"), {"max_length": 12})
    assert plan.kv_tokens == 12 * len(PROMPTS)
    assert [spec.max_new_tokens for spec in plan.sequences] == [5, 10, 11]
    plan = planned(pair_of("llama"), {"max_length": 12, "lengths_include_padding": True})
    assert [spec.max_new_tokens for spec in plan.sequences] == [5, 5, 5]
    assert plan.kv_tokens == sum(len(prompt) + 5 for prompt in PROMPTS)


def test_max_length_is_echoed_as_it_is_and_ignored_beside_max_new_tokens(pair_of):
    pair = pair_of("llama")
    first = planned(pair, {"max_length": 12, "lengths_include_padding": True})
    echoed = first.effective_config
    assert echoed.max_length == 12
    assert not echoed.HasField("max_new_tokens")
    again = planned(pair, echoed)
    assert again.resolved.config == first.resolved.config
    both = planned(pair, {"max_length": 12, "max_new_tokens": 30})
    assert both.effective_config.max_new_tokens == 30
    assert not both.effective_config.HasField("max_length")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"max_length": 7}, "max_length"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": -1}, "max_length"),
        ({"lengths_include_padding": True}, "lengths_include_padding"),
        (
            {"max_new_tokens": 3, "max_length": 9, "lengths_include_padding": True},
            "lengths_include_padding",
        ),
        ({"min_length": 3, "eos_token_ids": {}}, "min_length"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(pair_of, config, field):
    with pytest.raises(InvalidField) as caught:
        planned(pair_of("llama"), {"eos_token_ids": {"ids": [5]}, **config})
    assert [v.field for v in caught.value.violations] == [f"generation_config.{field}"]


def test_counting_padding_needs_padding(pair_of):
    pair = pair_of("llama")
    config = {"max_length": 9, "lengths_include_padding": True}
    with pytest.raises(InvalidField):
        planned(pair, config, with_padding=False)
    plan = planned(pair, config | {"lenient": True}, with_padding=False)
    assert [spec.num_padding for spec in plan.sequences] == [0, 0, 0]


def test_a_max_length_beyond_the_context_is_refused(pair_of):
    pair = pair_of("llama")
    assert planned(pair, {"max_length": CONTEXT_LENGTH})
    with pytest.raises(ContextLengthExceeded):
        planned(pair, {"max_length": CONTEXT_LENGTH + 1})
