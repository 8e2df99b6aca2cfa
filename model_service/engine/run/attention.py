"""The attention function that Hugging Face's modeling code calls in the engine's steps.

A step is packed: `[1, H, T, D]` queries of all runs, one after the other. Runs
of one token (decoding) come first and share one batched product over their
slots; longer runs (prefill) follow one by one. Each run sees the tokens of its
own slot up to itself and nothing else.

H: query heads, K: key-value heads, G = H / K, D: head size, T: tokens of the
step, N: decoding rows, S: key positions.
"""

from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from model_service.engine.run.kv_cache import KVCache, SlotLayer
from model_service.engine.run.kv_pages import PagedKVCache

NAME = "lockstep_slots"

# Arguments that are understood; a model that passes others is not served here.
KNOWN_ARGUMENTS = {
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_router_logits",
    "position_ids",
    "use_cache",
}

# Rows of holes that the batched product may compute without need, per row in use,
# before gathering the slots is cheaper.
MAX_WASTE = 1.0

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of more than one token: `[start, end)` of the step, after `past` cached ones."""

    start: int
    end: int
    slot: int
    past: int


@dataclass(slots=True)
class StepContext:
    """What the attention function needs to know about a step.

    Attributes:
        cache: where keys and values are.
        decode_slots: slots of the decoding rows, ascending.
        decode_lengths: tokens each may see, itself included.
        chunks: the longer runs.
        windows: sliding window by layer, None for full attention.
        first: lowest slot of the decoding rows.
        span: slots from the lowest to the highest of the decoding rows.
        gathers: whether the rows are too scattered to be read in place.
        max_length: longest of `decode_lengths`.
    """

    cache: KVCache
    decode_slots: list[int]
    decode_lengths: list[int]
    chunks: list[Chunk]
    windows: list[int | None]
    first: int = field(init=False)
    span: int = field(init=False)
    gathers: bool = field(init=False)
    max_length: int = field(init=False)
    _rows: dict[torch.device, Tensor] = field(default_factory=dict)
    _masks: dict[tuple[int | None, torch.device], Tensor | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.decode_slots)
        self.first = self.decode_slots[0] if count else 0
        self.span = self.decode_slots[-1] + 1 - self.first if count else 0
        self.gathers = self.cache.is_paged or self.span > count * (1 + MAX_WASTE)
        self.max_length = max(self.decode_lengths, default=0)
        positions = [length - 1 for length in self.decode_lengths]
        self._rows[_CPU] = torch.tensor([self.decode_slots, positions], dtype=torch.int64)

    def rows(self, device: torch.device) -> Tensor:
        """Returns slots and positions of the decoding rows, `[2, N]` int64, copied once a step."""
        if device not in self._rows:
            self._rows[device] = self._rows[_CPU].to(device, non_blocking=True)
        return self._rows[device]

    @property
    def is_dense(self) -> bool:
        """Whether the decoding rows' slots follow each other without holes."""
        return self.span == len(self.decode_slots)

    def decode_mask(self, window: int | None, device: torch.device) -> Tensor | None:
        """Returns which keys each row of the product may see, `[N, 1, 1, S]` bool; None for all.

        In a span with holes, the rows of the holes see their first (zero) key:
        a row that saw none would be NaN.
        """
        key = (window, device)
        if key not in self._masks:
            self._masks[key] = self._build_mask(window, device)
        return self._masks[key]

    def _build_mask(self, window: int | None, device: torch.device) -> Tensor | None:
        lengths = torch.tensor(self.decode_lengths, dtype=torch.int64)
        if not self.is_dense and not self.gathers:
            spread = torch.ones(self.span, dtype=torch.int64)
            spread[self.rows(_CPU)[0] - self.first] = lengths
            lengths = spread
        if int(lengths.min()) == self.max_length and (window is None or window >= self.max_length):
            return None
        keys = torch.arange(self.max_length)
        mask = keys < lengths[:, None]
        if window is not None:
            mask &= keys >= (lengths - window)[:, None]
        return mask[:, None, None, :].to(device, non_blocking=True)


# Set for the length of a step by `use`. A keyword argument would be copied from
# device to device by accelerate's hooks at every module.
_context: StepContext | None = None


class use:  # reads as a verb at its only place: `with attention.use(context):`
    """Makes a context the one that attention sees."""

    def __init__(self, context: StepContext) -> None:
        self._next = context

    def __enter__(self) -> None:
        global _context
        _context = self._next

    def __exit__(self, *error: object) -> None:
        global _context
        _context = None


def refuse_unknown(arguments: dict[str, object]) -> None:
    """Refuses what a model passes to attention beyond the parameters below.

    Raises:
        NotImplementedError: one is not among `KNOWN_ARGUMENTS`.
    """
    if unknown := {name for name, v in arguments.items() if v is not None} - KNOWN_ARGUMENTS:
        raise NotImplementedError(f"attention arguments {sorted(unknown)}")


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **arguments: object,
) -> tuple[Tensor, None]:
    """Attends over slots.

    Args:
        module: the attention layer; its `layer_idx` finds the slots.
        query: `[1, H, T, D]`.
        key: `[1, K, T, D]`, already written to the slots.
        value: `[1, K, T, D]`, likewise.
        attention_mask: always None: lengths say what a row sees.
        scaling: factor of the scores; None means D ** -0.5.
        dropout: ignored, inference only.
        sliding_window: ignored: some models pass one to layers that see everything, because the
            mask decides in Hugging Face's own attention; `StepContext.windows` does here.
        softcap: bound of tanh soft-capping of the scores.
        s_aux: `[H]` logit of an attention sink per head.
        **arguments: must be among `KNOWN_ARGUMENTS`.

    Returns:
        `[1, T, H, D]` in the dtype of `query`, and None in place of weights.

    Raises:
        NotImplementedError: an argument is not among `KNOWN_ARGUMENTS`.
        RuntimeError: no step is running, which is a bug.
    """
    context = _context
    if context is None:
        raise RuntimeError("Attention over slots outside of a step. This is a bug.")
    refuse_unknown(arguments)
    index = cast(int, module.layer_idx)
    layer = context.cache.slot_layers[index]
    window = context.windows[index]
    attend = Attend(scaling, softcap, s_aux)
    parts = []
    count = len(context.decode_slots)
    if count:
        parts.append(_decode(context, layer, query[0, :, :count], window, attend))
    for chunk in context.chunks:
        own = query[:, :, chunk.start : chunk.end]
        parts.append(_prefill(context.cache, layer, own, chunk, window, attend))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0), None


@dataclass(frozen=True, slots=True)
class Attend:
    """Scaled dot-product attention with the options that models have."""

    scaling: float | None
    softcap: float | None
    sinks: Tensor | None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """Attends: `[N, K, Q, D]` over `[N, K, S, D]`; a query may hold grouped heads.

        Args:
            query: `[N, K, Q, D]`.
            key: `[N, K, S, D]`.
            value: `[N, K, S, Dv]`.
            mask: broadcastable to `[N, K, Q, S]` bool, True where visible; None for all.
            causal: whether query i sees keys up to i only. Excludes `mask`.
        """
        if self.softcap is None and self.sinks is None:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=causal, scale=self.scaling
            )
        scaling = query.shape[-1] ** -0.5 if self.scaling is None else self.scaling
        weights = query @ key.transpose(-1, -2) * scaling  # [N, K, Q, S]
        if self.softcap is not None:
            weights = torch.tanh(weights / self.softcap) * self.softcap
        if causal:
            mask = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).tril()
        if mask is not None:
            weights = weights.masked_fill(~mask, torch.finfo(weights.dtype).min)
        if self.sinks is not None:
            sinks = self.sinks.view(1, key.shape[1], -1, 1)  # [1, K, G, 1]
            repeats = query.shape[2] // sinks.shape[2]
            sinks = sinks.repeat_interleave(repeats, 2).expand(*weights.shape[:-1], 1)
            weights = torch.cat((weights, sinks.to(weights.dtype)), -1)
        weights = weights.softmax(-1, dtype=torch.float32).to(query.dtype)
        return weights[..., : key.shape[2]] @ value


def _decode(
    context: StepContext, layer: SlotLayer, query: Tensor, window: int | None, attend: Attend
) -> Tensor:
    """Attends for all decoding rows at once: `[H, N, D]` to `[N, H, D]`."""
    assert layer.k is not None
    assert layer.v is not None
    heads, count, size = query.shape
    device, num_heads = layer.k.data.device, layer.k.data.shape[2]
    rows = query.transpose(0, 1).reshape(count, num_heads, heads // num_heads, size)  # [N, K, G, D]
    if isinstance(context.cache, PagedKVCache) and context.cache.kernel is not None:
        return context.cache.kernel(
            query.transpose(0, 1),
            layer.k.data,
            layer.v.data,
            context.cache.table_on(device),
            *context.rows(device),
            longest=context.max_length,
            scaling=size**-0.5 if attend.scaling is None else attend.scaling,
            window=window,
            softcap=attend.softcap,
            sinks=attend.sinks,
        )
    if context.gathers:
        slots = context.rows(device)[0]
        keys = context.cache.read_rows(layer.k, slots, context.max_length)  # [N, S, K, D]
        values = context.cache.read_rows(layer.v, slots, context.max_length)
    else:
        span = slice(context.first, context.first + context.span)
        keys = layer.k.data[span, : context.max_length]
        values = layer.v.data[span, : context.max_length]
    spread = not context.gathers and not context.is_dense
    if spread:
        places = context.rows(device)[0] - context.first
        rows = rows.new_zeros(context.span, *rows.shape[1:]).index_copy_(0, places, rows)
    mask = context.decode_mask(window, device)
    out = attend(rows, keys.transpose(1, 2), values.transpose(1, 2), mask)  # [N, K, G, Dv]
    if spread:
        out = out.index_select(0, places)
    return out.reshape(count, heads, -1)


def _prefill(
    cache: KVCache,
    layer: SlotLayer,
    query: Tensor,
    chunk: Chunk,
    window: int | None,
    attend: Attend,
) -> Tensor:
    """Attends for one longer run: `[1, H, T, D]` to `[T, H, D]`."""
    assert layer.k is not None
    assert layer.v is not None
    length = chunk.end - chunk.start
    total = chunk.past + length
    keys = cache.read(layer.k, chunk.slot, total).transpose(0, 1).unsqueeze(0)  # [1, K, S, D]
    values = cache.read(layer.v, chunk.slot, total).transpose(0, 1).unsqueeze(0)
    groups = query.shape[1] // keys.shape[1]
    if groups > 1:
        keys = keys.repeat_interleave(groups, 1)
        values = values.repeat_interleave(groups, 1)
    if chunk.past == 0 and (window is None or total <= window):
        out = attend(query, keys, values, None, causal=True)
    else:
        places = torch.arange(chunk.past, total, device=query.device)[:, None]
        seen = torch.arange(total, device=query.device)
        mask = seen <= places
        if window is not None:
            mask &= seen > places - window
        out = attend(query, keys, values, mask)
    return out[0].transpose(0, 1)


AttentionInterface.register(NAME, slot_attention)
