"""A decoder in which our operators stand where linear layers and attention are.

Hugging Face's modeling code runs unmodified around them. A product is named by
its number, attention by its layer; weights and caches are not part of the graph.

T: tokens of the step, H: hidden size.
"""

from typing import cast

import accelerate
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_utils import AttentionInterface

from model_service.engine.layers.merged_linear import MergedLinear, SharedProduct
from model_service.engine.run.attention import refuse_unknown
from model_service.engine.run.decode_graph.recipe import Product, Recipe

NAME = "lockstep_graph"


class Step(nn.Module):
    """A decoder as a function of what changes from step to step."""

    def __init__(self, decoder: PreTrainedModel, windows: list[int | None]) -> None:
        super().__init__()
        self.decoder = decoder
        self._windows = windows

    def forward(self, embeds: Tensor, positions: Tensor, slots: Tensor) -> Tensor:
        """Passes a packed step through the layers.

        Args:
            embeds: `[1, T, H]` rows of the embedding.
            positions: `[1, T]` int64.
            slots: `[T]` int64.

        Returns:
            `[1, T, H]` last hidden states.
        """
        global _step
        _step = (self._windows, positions[0], slots)
        try:
            output = self.decoder(inputs_embeds=embeds, position_ids=positions, use_cache=False)
        finally:
            _step = None
        return cast(Tensor, output.last_hidden_state)


class _NumberedProduct(nn.Module):
    """The product with a number."""

    def __init__(self, number: int, out_features: int) -> None:
        super().__init__()
        self._number = number
        self._out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies `[.., in_features]` to `[.., out_features]`."""
        product: Tensor = torch.ops.lockstep.packed_product(x, self._number, self._out_features)
        return product


def make_step(recipe: Recipe) -> Step:
    """Builds a step without weights: of parameters only the shapes are looked at.

    Buffers are what the configuration makes them, because the compiler writes small ones, such as
    the frequencies of rotary embeddings, into the code.
    """
    config = AutoConfig.from_pretrained(
        recipe.model_folder, local_files_only=True, trust_remote_code=False
    )
    with accelerate.init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, recipe.dtype))
    model.set_attn_implementation(NAME)
    decoder = model.eval().requires_grad_(False).base_model
    for number, product in enumerate(recipe.products):
        _place(decoder, number, product)
    for module in decoder.modules():
        for name, parameter in module.named_parameters(recurse=False):
            untouched = torch.empty_like(parameter, device="cpu")  # takes no memory until written
            setattr(module, name, nn.Parameter(untouched, requires_grad=False))
    return Step(decoder, recipe.windows)


def _place(decoder: nn.Module, number: int, product: Product) -> None:
    """Puts a numbered product where its layers are."""
    shared = SharedProduct(_NumberedProduct(number, sum(product.sizes)), product.sizes)
    for index, name in enumerate(product.names):
        parent_name, _, own_name = name.rpartition(".")
        parent = decoder.get_submodule(parent_name)
        linear = cast(nn.Linear, parent.get_submodule(own_name))
        layer = MergedLinear(linear, shared, index)
        setattr(parent, own_name, layer)


# Set while a step is traced: windows by layer, positions `[T]` and slots `[T]`.
_step: tuple[list[int | None], Tensor, Tensor] | None = None


def traced_attention(
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
    """Stands in for `attention.slot_attention`, with the same arguments.

    Returns:
        `[1, T, H, D]` in the dtype of `query`, and None in place of weights.
    """
    assert _step is not None
    refuse_unknown(arguments)
    windows, positions, slots = _step
    layer = cast(int, module.layer_idx)
    out: Tensor = torch.ops.lockstep.attention(
        query,
        key,
        value,
        slots,
        positions,
        layer,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        windows[layer] or 0,
        softcap or 0.0,
        s_aux,
    )
    return out, None


AttentionInterface.register(NAME, traced_attention)
