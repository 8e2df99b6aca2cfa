"""What `generate` gives: the answers that every runner is compared with.

V: ids of revision 0.
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig

from model_service.engine.layers import placement
from model_service.engine.load.loader import LoadedModel, Refused

PROMPT_LENGTHS = (23, 9, 1)
NEW_TOKENS = 4

# Fields of a configuration that bound what a token sees, and the bound that is tried.
WINDOW_FIELDS = ("sliding_window", "attention_chunk_size")
SHORT_WINDOW = 5


@dataclass(frozen=True, slots=True)
class Example:
    """What `generate` gives.

    Attributes:
        token_ids: prompt and continuation, without its last token.
        logits: `[NEW_TOKENS, V]` float32, the first at the end of the prompt.
    """

    token_ids: list[int]
    logits: Tensor

    @property
    def prompt(self) -> list[int]:
        """The tokens before the ones that `generate` chose."""
        return self.token_ids[: len(self.token_ids) + 1 - len(self.logits)]

    def given(self, index: int) -> int:
        """Returns the token from which row `index` of the logits follows."""
        return self.token_ids[len(self.token_ids) - len(self.logits) + index]


def examples(loaded: LoadedModel, vocabulary_size: int) -> list[Example]:
    """Continues the prompts with `generate`, whatever the model's own defaults are."""
    model = loaded.model
    own, model.generation_config = model.generation_config, GenerationConfig()
    unused = list(range(vocabulary_size, loaded.num_embedding_rows))
    try:
        prompts = probe_prompts(vocabulary_size)
        return [
            _example(model, loaded.embedding, prompt, vocabulary_size, unused) for prompt in prompts
        ]
    finally:
        model.generation_config = own


@torch.inference_mode()
def _example(
    model: Any, embedding: nn.Module, prompt: list[int], vocabulary_size: int, unused: list[int]
) -> Example:
    device = placement.input_device(embedding)
    output = model.generate(
        torch.tensor([prompt], device=device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64, device=device),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=unused or None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = torch.cat(output.logits)[:, :vocabulary_size].float().cpu()
    return Example(output.sequences[0, :-1].tolist(), logits)


@torch.inference_mode()
def try_last_position(loaded: LoadedModel) -> None:
    """Checks that the model has the positions that its configuration promises.

    Raises:
        Refused: it ends before.
    """
    model: Any = loaded.model
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return
    last = loaded.context_length - 1
    places = torch.tensor([[0], [last]], device=placement.input_device(loaded.embedding))
    try:
        model(input_ids=places[:1], position_ids=places[1:], use_cache=False)
    except (IndexError, RuntimeError) as error:
        raise Refused(
            f"{type(model).__name__} has no position {last}, although its configuration says so; "
            "set max_context_tokens to what it has."
        ) from error


def has_windows(config: PreTrainedConfig) -> bool:
    """Whether some layer may see less than all earlier tokens."""
    return any(getattr(config, name, None) for name in WINDOW_FIELDS)


@contextlib.contextmanager
def short_windows(config: PreTrainedConfig) -> Iterator[None]:
    """Makes the windows of a configuration shorter than the prompts that are tried."""
    before = {name: getattr(config, name, None) for name in WINDOW_FIELDS}
    try:
        for name, value in before.items():
            if value:
                setattr(config, name, SHORT_WINDOW)
        yield
    finally:
        for name, value in before.items():
            if value:
                setattr(config, name, value)


def probe_prompts(vocabulary_size: int) -> list[list[int]]:
    """Returns the prompts that are tried: fixed, of different length, the longest first."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(vocabulary_size, (length,), generator=generator).tolist()
        for length in PROMPT_LENGTHS
    ]
