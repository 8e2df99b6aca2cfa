"""Loads a checkpoint and finds out what it is. Refuses what cannot be served."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from model_service.engine import default_fields
from model_service.engine.sampling import processors
from model_service.engine.sequence import Sequence
from model_service.generation import GenerationConfig
from model_service.messages import EngineSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

LAYER_TYPES = {"full_attention", "sliding_attention"}

DEFAULT_CONTEXT_TOKENS = 8192

# Fields of a model's generation_config.json that change its results and that the
# sampler does not apply, with the values that turn them off.
NOT_SAMPLED: dict[str, tuple[object, ...]] = {
    "num_beams": (None, 1),
    "penalty_alpha": (None,),
    "guidance_scale": (None, 1),
}


class Refused(Exception):
    """The model cannot be served. The message says why, and the way out."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its devices.

    Attributes:
        model: Hugging Face's module, in evaluation mode.
        config: its text configuration.
        context_length: most tokens of a sequence.
        windows: sliding window by layer, None for full attention.
        device_map: module name to device.
        num_parameters: parameters of the checkpoint, shared ones once.
        load_s: seconds that loading took.
    """

    model: PreTrainedModel
    config: PreTrainedConfig
    context_length: int
    windows: list[int | None]
    device_map: dict[str, str]
    num_parameters: int
    load_s: float

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and KV cache."""
        return self.model.dtype

    @property
    def dtype_name(self) -> str:
        """Type of weights and KV cache, as in the settings."""
        return str(self.dtype).removeprefix("torch.")


def load(settings: EngineSettings) -> LoadedModel:
    """Loads the checkpoint named by the settings.

    Raises:
        Refused: the checkpoint has no safetensors, needs code of its own, or is of a kind that
            is not served.
    """
    start = time.monotonic()
    folder = Path(settings.model_folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text_config = config.get_text_config(decoder=True)
    windows = layer_windows(text_config)
    model = _load_weights(folder, settings)
    model.eval()
    model.requires_grad_(False)
    devices = getattr(model, "hf_device_map", None) or {"": str(model.device)}
    return LoadedModel(
        model=model,
        config=text_config,
        context_length=_context_length(text_config, settings),
        windows=windows,
        device_map={name: str(device) for name, device in devices.items()},
        num_parameters=model.num_parameters(),
        load_s=time.monotonic() - start,
    )


def _load_weights(folder: Path, settings: EngineSettings) -> PreTrainedModel:
    dtype = DTYPES.get(settings.dtype, settings.dtype)
    device_map = _device_map(settings.device_map)
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"{folder.name}: {error}") from error


def _device_map(setting: str) -> str | dict[str, str] | None:
    """Reads the setting. One usable device needs no map, and so no hooks."""
    if setting.startswith("{"):
        given: dict[str, str] = json.loads(setting)
        return given
    if setting in {"auto", "balanced", "sequential"}:
        if torch.cuda.device_count() > 1:
            return setting
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    return None if setting == "cpu" else {"": setting}


def _context_length(config: PreTrainedConfig, settings: EngineSettings) -> int:
    made_for = getattr(config, "max_position_embeddings", None) or DEFAULT_CONTEXT_TOKENS
    wanted = settings.max_context_tokens or DEFAULT_CONTEXT_TOKENS
    return min(made_for, wanted)


def layer_windows(config: PreTrainedConfig) -> list[int | None]:
    """Returns the sliding window of each layer, None for full attention.

    Raises:
        Refused: a layer is of a kind that the KV cache does not hold.
    """
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    count = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    if types is None:
        return [window] * count
    if unknown := set(types) - LAYER_TYPES:
        raise Refused(
            f"{config.model_type} has layers of type {', '.join(sorted(unknown))}; this server "
            f"runs {', '.join(sorted(LAYER_TYPES))}."
        )
    return [window if kind == "sliding_attention" else None for kind in types]


def default_config(model: PreTrainedModel, settings: EngineSettings) -> GenerationConfig:
    """Resolves what an empty request uses: the model's own defaults, then Hugging Face's.

    `max_new_tokens` is ours: Hugging Face's default of 20 tokens in all would cut
    most answers short.

    Raises:
        Refused: the model's own defaults ask for what the sampler does not do, so that its
            results would differ from `generate`'s.
    """
    prepare: Any = model._prepare_generation_config
    resolved, _ = prepare(None)  # the one source
    asked = [name for name, off in NOT_SAMPLED.items() if getattr(resolved, name, None) not in off]
    if asked:
        raise Refused(
            f"generation_config.json sets {', '.join(asked)}, which this server does not apply; "
            "remove it from the file to serve the model without."
        )
    try:
        fields = default_fields.read(resolved)
    except (ValueError, TypeError) as error:
        raise Refused(f"generation_config.json cannot be applied: {error}") from error
    config = GenerationConfig(
        max_new_tokens=resolved.max_new_tokens or settings.default_max_new_tokens, **fields
    )
    _check_applicable(config, model.config.get_text_config(decoder=True).vocab_size)
    return config


def _check_applicable(config: GenerationConfig, vocabulary_size: int) -> None:
    """Builds and applies the processors once, so that no request is the first to fail.

    Raises:
        Refused: one cannot be built, or names ids that the model does not have.
    """
    sampled = msgspec.structs.replace(config, do_sample=True)
    for length in (1, 2):
        seq = Sequence(
            request_id=0,
            row=0,
            token_ids=[0] * length,
            config=sampled,
            seed=0,
            vocabulary_size=vocabulary_size,
            revision=0,
            max_length=length + 1,
        )
        try:
            processors.scores(seq, torch.zeros(vocabulary_size), ())
        except (ValueError, TypeError, IndexError) as error:
            raise Refused(f"generation_config.json cannot be applied: {error}") from error
