from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from model_service.engine.run import attention
from model_service.engine.run.attention import Chunk, StepContext, slot_attention
from model_service.engine.run.kv_cache import KVCache

HEADS, KEY_HEADS, SIZE, SLOTS, LENGTH = 4, 2, 8, 12, 32
MODULE = SimpleNamespace(layer_idx=0)


def run(decode: dict[int, int], chunks: list[tuple[int, int, int]], window=None, **arguments):
    """Runs a step over random history and returns what each run should and did give.

    Args:
        decode: slot to length, the token itself included.
        chunks: slot, past, length.
    """
    generator = torch.Generator().manual_seed(0)
    cache = KVCache(num_layers=1, num_slots=SLOTS, max_length=LENGTH, dtype=torch.float32)
    step = [(slot, length - 1, 1) for slot, length in sorted(decode.items())] + chunks
    total = sum(length for *_, length in step)
    query = torch.randn(1, HEADS, total, SIZE, generator=generator)
    history = {
        slot: torch.randn(2, KEY_HEADS, LENGTH, SIZE, generator=generator) for slot, *_ in step
    }
    new = torch.cat([history[slot][:, :, past : past + n] for slot, past, n in step], 2)
    places = [(slot, past + i) for slot, past, n in step for i in range(n)]
    cache.set_places(*torch.tensor(places).T)
    cache.update(new[0][None], new[1][None], 0)
    for slot, past, _ in step:
        cache.layers[0].k.data[slot, :past] = history[slot][0, :, :past].transpose(0, 1)
        cache.layers[0].v.data[slot, :past] = history[slot][1, :, :past].transpose(0, 1)
    starts = torch.tensor([0] + [n for *_, n in step]).cumsum(0).tolist()
    context = StepContext(
        cache=cache,
        decode_slots=sorted(decode),
        decode_lengths=[decode[slot] for slot in sorted(decode)],
        chunks=[
            Chunk(start, start + n, slot, past)
            for start, (slot, past, n) in zip(starts, step, strict=False)
            if n > 1
        ],
        windows=[window],
    )
    with attention.use(context):
        got, _ = slot_attention(MODULE, query, new[0][None], new[1][None], None, **arguments)
    for start, (slot, past, n) in zip(starts, step, strict=False):
        keys, values = history[slot][:, :, : past + n].repeat_interleave(HEADS // KEY_HEADS, 1)
        rows = torch.arange(past, past + n)[:, None]
        columns = torch.arange(past + n)
        mask = columns <= rows
        if window is not None:
            mask &= columns > rows - window
        yield (
            _plain(query[0, :, start : start + n], keys, values, mask, **arguments),
            got[0, start : start + n].transpose(0, 1),
        )


def _plain(query, keys, values, mask, softcap=None, s_aux=None):
    if softcap is None and s_aux is None:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    weights = query @ keys.transpose(-1, -2) * SIZE**-0.5
    if softcap is not None:
        weights = softcap * torch.tanh(weights / softcap)
    weights = weights.masked_fill(~mask, -torch.inf)
    if s_aux is not None:
        sinks = s_aux[:, None, None].expand(*weights.shape[:-1], 1)
        return torch.cat((weights, sinks), -1).softmax(-1)[..., :-1] @ values
    return weights.softmax(-1) @ values


STEPS = {
    "dense decode": ({0: 5, 1: 9, 2: 9}, []),
    "equal lengths": ({0: 7, 1: 7}, []),
    "decode with a hole": ({0: 5, 1: 3, 3: 20}, []),
    "scattered decode": ({0: 5, 11: 20}, []),
    "one row in a high slot": ({9: 12}, []),
    "first token": ({4: 1}, []),
    "prefill": ({}, [(2, 0, 12)]),
    "prefill in chunks": ({}, [(2, 6, 9), (5, 0, 3)]),
    "mixed": ({0: 5, 2: 14, 3: 8}, [(7, 10, 6), (8, 0, 20)]),
}


@pytest.mark.parametrize("window", [None, 4], ids=["full", "window"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_run_sees_its_own_past_and_nothing_else(step, window):
    for expected, got in run(*step, window=window):
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_soft_capping_is_applied_before_the_mask(step):
    for expected, got in run(*step, window=4, softcap=2.0):
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_sinks_take_their_share_of_the_probability(step):
    for expected, got in run(*step, s_aux=torch.tensor([0.5, -1.0, 2.0, 0.0])):
        assert torch.allclose(got, expected, atol=1e-6)


def test_an_unknown_argument_is_refused():
    with pytest.raises(NotImplementedError, match="position_bias"):
        list(run({0: 3}, [], position_bias=torch.zeros(1)))


def test_attention_outside_of_a_step_is_a_bug():
    with pytest.raises(RuntimeError, match="outside of a step"):
        slot_attention(MODULE, *[torch.zeros(1, 2, 1, 4)] * 3, None)
