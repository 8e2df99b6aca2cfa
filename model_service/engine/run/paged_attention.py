"""Attention over pages on a GPU, in Triton. Not imported where Triton is not installed.

Every token has a slot and a position, and sees the keys of its slot up to itself.
As in the kernel for CPUs (`decode_graph/attention.cpp`), keys are taken in segments
of a fixed length from the token's first one, and segments are joined in order: what
a token gets does not depend, to the bit, on what else is in the step. Scores and sums
are float32.

H: query heads, K: key-value heads, G = H / K, D: head size, T: tokens.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model_service.engine.run.page_table import PAGE_TOKENS

# Keys of one program, and those that it looks at together.
SEGMENT = 256
BLOCK = 64

# Least rows of a product of Triton's.
MIN_ROWS = 16


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    slots: Tensor,
    positions: Tensor,
    *,
    longest: int,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attends for tokens of any slots, whose keys and values are in their pages already.

    Args:
        query: `[T, H, D]` float32, bfloat16 or float16.
        keys: `[pages, PAGE_TOKENS, K, D]`, in the dtype of `query`.
        values: `[pages, PAGE_TOKENS, K, Dv]`, likewise.
        table: `[slots, pages of a slot]` int32.
        slots: `[T]` int64.
        positions: `[T]` int64, of each token in its slot.
        longest: keys that a token sees, at most.
        scaling: factor of the scores.
        window: keys that a token sees at most, itself included; None for all.
        softcap: bound of tanh soft-capping of the scores.
        sinks: `[H]` logit of an attention sink per head.

    Returns:
        `[T, H, Dv]` in the dtype of `query`.
    """
    count, heads, key_size = query.shape
    num_kv_heads, value_size = values.shape[2], values.shape[3]
    groups = heads // num_kv_heads
    longest = min(longest, window) if window is not None else longest
    segments = triton.cdiv(longest, SEGMENT)
    scratch = query.new_empty((count, heads, segments, value_size), dtype=torch.float32)
    largest = query.new_empty((count, heads, segments), dtype=torch.float32)
    weights = torch.empty_like(largest)
    out = query.new_empty((count, heads, value_size))
    query = query.contiguous()
    sizes = {
        "KEY_SIZE": key_size,
        "KEY_LANES": max(triton.next_power_of_2(key_size), MIN_ROWS),
        "VALUE_SIZE": value_size,
        "VALUE_LANES": max(triton.next_power_of_2(value_size), MIN_ROWS),
    }
    # Triton launches on the current device, whichever has the tensors.
    with torch.cuda.device_of(query):
        _attend_segment[(count * num_kv_heads, segments)](
            query,
            keys,
            values,
            table,
            slots,
            positions,
            scratch,
            largest,
            weights,
            table.stride(0),
            scaling,
            softcap or 0.0,
            window or 0,
            segments,
            KV_HEADS=num_kv_heads,
            GROUPS=groups,
            ROWS=max(triton.next_power_of_2(groups), MIN_ROWS),
            PAGE=PAGE_TOKENS,
            SEGMENT=SEGMENT,
            BLOCK=BLOCK,
            **sizes,
        )
        _join_segments[(count * heads,)](
            scratch,
            largest,
            weights,
            positions,
            query if sinks is None else sinks,
            out,
            window or 0,
            segments,
            HEADS=heads,
            HAS_SINKS=sinks is not None,
            SEGMENT=SEGMENT,
            VALUE_SIZE=value_size,
            VALUE_LANES=sizes["VALUE_LANES"],
        )
    return out


@triton.jit
def _first_key(position, window):
    """Returns the first key that a token sees."""
    return tl.where(window > 0, tl.maximum(position + 1 - window, 0), 0)


@triton.jit
def _attend_segment(
    query,
    keys,
    values,
    table,
    slots,
    positions,
    scratch,
    largest,
    weights,
    table_stride,
    scaling,
    softcap,
    window,
    segments,
    KV_HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    PAGE: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
    KEY_SIZE: tl.constexpr,
    KEY_LANES: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE_LANES: tl.constexpr,
):
    """Attends with the G queries of one token and key-value head to one segment of its keys."""
    token, head = tl.program_id(0) // KV_HEADS, tl.program_id(0) % KV_HEADS
    segment = tl.program_id(1)
    position = tl.load(positions + token)
    start = _first_key(position, window) + segment * SEGMENT
    end = tl.minimum(position + 1, start + SEGMENT)
    if start < end:
        row = table + tl.load(slots + token) * table_stride
        group = tl.arange(0, ROWS)
        lane = tl.arange(0, KEY_LANES)
        out_lane = tl.arange(0, VALUE_LANES)
        heads = token * KV_HEADS * GROUPS + head * GROUPS + group  # of the token's queries
        queries = tl.load(
            query + heads[:, None] * KEY_SIZE + lane[None, :],
            mask=(group[:, None] < GROUPS) & (lane[None, :] < KEY_SIZE),
            other=0.0,
        )
        most = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        sums = tl.zeros((ROWS, VALUE_LANES), tl.float32)
        for first in range(0, SEGMENT, BLOCK):
            key = start + first + tl.arange(0, BLOCK)
            seen = key < end
            page = tl.load(row + key // PAGE, mask=seen, other=0).to(tl.int64)
            place = (page * PAGE + key % PAGE) * KV_HEADS + head
            block = tl.load(
                keys + place[None, :] * KEY_SIZE + lane[:, None],
                mask=seen[None, :] & (lane[:, None] < KEY_SIZE),
                other=0.0,
            )
            scores = tl.dot(queries, block, input_precision="ieee") * scaling
            if softcap > 0:
                scores = _tanh(scores / softcap) * softcap
            scores = tl.where(seen[None, :], scores, float("-inf"))
            higher = tl.maximum(most, tl.max(scores, 1))
            factor = tl.exp(most - higher)
            weight = tl.exp(scores - higher[:, None])
            total = total * factor + tl.sum(weight, 1)
            block = tl.load(
                values + place[:, None] * VALUE_SIZE + out_lane[None, :],
                mask=seen[:, None] & (out_lane[None, :] < VALUE_SIZE),
                other=0.0,
            )
            sums = sums * factor[:, None] + tl.dot(
                weight.to(block.dtype), block, input_precision="ieee"
            )
            most = higher  # finite: the first key of a segment is seen
        part = heads * segments + segment
        mine = group < GROUPS
        tl.store(largest + part, most, mask=mine)
        tl.store(weights + part, total, mask=mine)
        tl.store(
            scratch + part[:, None] * VALUE_SIZE + out_lane[None, :],
            sums,
            mask=mine[:, None] & (out_lane[None, :] < VALUE_SIZE),
        )


@triton.jit
def _join_segments(
    scratch,
    largest,
    weights,
    positions,
    sinks,
    out,
    window,
    segments,
    HEADS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    SEGMENT: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE_LANES: tl.constexpr,
):
    """Joins what one query has seen of the segments, in their order."""
    row = tl.program_id(0)
    position = tl.load(positions + row // HEADS)
    used = tl.cdiv(position + 1 - _first_key(position, window), SEGMENT)
    lane = tl.arange(0, VALUE_LANES)
    most = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    if HAS_SINKS:
        most = tl.load(sinks + row % HEADS).to(tl.float32)
        total += 1.0
    sums = tl.zeros((VALUE_LANES,), tl.float32)
    for segment in range(used):
        part = row * segments + segment
        own = tl.load(largest + part)
        higher = tl.maximum(most, own)
        kept, added = tl.exp(most - higher), tl.exp(own - higher)
        total = total * kept + tl.load(weights + part) * added
        part_sums = tl.load(scratch + part * VALUE_SIZE + lane, mask=lane < VALUE_SIZE, other=0.0)
        sums = sums * kept + part_sums * added
        most = higher
    result = sums / total
    tl.store(out + row * VALUE_SIZE + lane, result.to(out.dtype.element_ty), mask=lane < VALUE_SIZE)


@triton.jit
def _tanh(x):
    """Returns tanh, without the overflow of exp for large x."""
    small = tl.exp(-2.0 * tl.abs(x))
    return tl.where(x < 0, -1.0, 1.0) * (1.0 - small) / (1.0 + small)
