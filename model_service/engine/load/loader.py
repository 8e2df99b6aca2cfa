"""Loads a checkpoint and finds out what it is. Refuses what cannot be served."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from model_service.engine.layers import placement
from model_service.engine.load import adapter, default_fields, gpu_memory
from model_service.engine.sampling import processors
from model_service.engine.sampling.choosing import Choosing
from model_service.engine.vocabulary.vocabulary import RevisionRows, check_can_grow
from model_service.protocol import EngineSettings
from model_service.protocol.parameters import GenerationConfig

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

LAYER_TYPES = {"full_attention", "sliding_attention"}

DEFAULT_CONTEXT_TOKENS = 8192

# What is packed most has a bit per weight.
MOST_VALUES_PER_BYTE = 8

# A model of at most this size is harmless whatever its files hold: it may have large tables.
SMALL_MODEL = 2**28

# Where configurations say how many tokens a model was made for.
CONTEXT_FIELDS = ("max_position_embeddings", "max_seq_len", "seq_length", "n_ctx")

# Fields of a model's generation_config.json that change its results and that the
# sampler does not apply, with the values that turn them off.
NOT_SAMPLED: dict[str, tuple[object, ...]] = {
    "num_return_sequences": (None, 1),
    "token_healing": (None, False),
    "cache_implementation": (None, "dynamic", "static", "offloaded", "offloaded_static"),
    "low_memory": (None, False),
    "penalty_alpha": (None,),
    "dola_layers": (None,),
    "diversity_penalty": (None, 0.0),
    "num_beam_groups": (None, 1),
    "constraints": (None,),
    "force_words_ids": (None,),
}


class Refused(Exception):
    """The model cannot be served. The message says why, and the remedy."""


class Unavailable(Refused):
    """What a setting insists on does not work here. Nothing else is tried in its place."""


class DoesNotFit(Refused):
    """Memory is not sufficient, or a device fails: another path would not help."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its devices.

    Attributes:
        model: Hugging Face's module, in evaluation mode.
        config: its text configuration, the one that its modules read.
        context_length: most tokens of a sequence.
        device_map: module name to device.
        num_parameters: parameters of the checkpoint, shared ones once.
        load_s: seconds that loading took.
    """

    model: PreTrainedModel
    config: PreTrainedConfig
    context_length: int
    device_map: dict[str, str]
    num_parameters: int
    load_s: float

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and KV cache."""
        return self.model.dtype

    @property
    def is_on_cpu(self) -> bool:
        """Whether all weights are in the machine's own memory."""
        return all(weight.device.type == "cpu" for weight in self.model.parameters())

    @property
    def is_on_gpus(self) -> bool:
        """Whether no weights are in the machine's own memory."""
        return all(weight.device.type != "cpu" for weight in self.model.parameters())

    @property
    def is_on_one_gpu(self) -> bool:
        """Whether the model is whole on a GPU: no hook moves tensors between its modules."""
        return self.is_on_gpus and len(self.device_map) == 1

    @property
    def embedding(self) -> nn.Embedding:
        """The layer that takes ids."""
        return cast(nn.Embedding, self.model.get_input_embeddings())

    @property
    def num_embedding_rows(self) -> int:
        """Ids that the checkpoint has a row for, padding included."""
        return self.embedding.weight.shape[0]

    @property
    def hidden_size(self) -> int:
        """Values of an embedding row."""
        return self.embedding.weight.shape[1]

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
    model = _load_weights(Path(settings.model_folder), settings)
    text_config = model.config.get_text_config(decoder=True)
    devices = getattr(model, "hf_device_map", None) or {"": str(model.device)}
    return LoadedModel(
        model=model,
        config=text_config,
        context_length=_context_length(text_config, settings),
        device_map={name: str(device) for name, device in devices.items()},
        num_parameters=model.num_parameters(),
        load_s=time.monotonic() - start,
    )


def _load_weights(folder: Path, settings: EngineSettings) -> PreTrainedModel:
    dtype = DTYPES.get(settings.dtype, settings.dtype)
    trusted = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **trusted)
        if getattr(config, "is_encoder_decoder", False):
            raise Refused(
                f"{folder.name}: {config.model_type} is an encoder and a decoder; this server "
                "runs models that are a decoder alone."
            )
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
        _check_size(folder, skeleton)
        device_map = placement.read(settings.device_map)
        if isinstance(device_map, dict):
            placement.check_covers(skeleton, device_map)
        if getattr(config, "quantization_config", None) is None:
            gpu_memory.check_weights(skeleton, device_map, _itemsize(dtype, config))
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map,
            max_memory=gpu_memory.for_weights() if isinstance(device_map, str) else None,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused by name
            **trusted,
        )
        if isinstance(device_map, str):
            gpu_memory.check_placed(loaded[0].hf_device_map)
    except Refused:
        raise
    except (gpu_memory.TooLarge, torch.OutOfMemoryError) as error:
        raise DoesNotFit(f"{folder.name} does not fit: {error}") from error
    except Exception as error:  # an untried configuration may fail in any way
        raise Refused(f"{folder.name}: {error}") from error
    model, report = loaded
    _check_weights(folder.name, model, report)
    try:
        check_can_grow(model, settings.vocabulary_size)
    except ValueError as error:
        raise Refused(f"{folder.name}: {error}.") from error
    model.eval()
    model.requires_grad_(False)
    return _with_adapter(model, settings.adapter_folder)


def _itemsize(dtype: Any, config: PreTrainedConfig) -> int:
    """Returns the bytes of a weight as it is loaded."""
    found = dtype if isinstance(dtype, torch.dtype) else getattr(config, "dtype", None)
    return found.itemsize if isinstance(found, torch.dtype) else torch.float32.itemsize


def _check_size(folder: Path, skeleton: PreTrainedModel) -> None:
    """Checks that a model is not far larger than its files: memory is taken before they are read.

    Raises:
        Refused: it is.
    """
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    tensors = (*skeleton.parameters(), *skeleton.buffers())
    size = sum(tensor.numel() for tensor in tensors)
    if size > max(MOST_VALUES_PER_BYTE * num_bytes, SMALL_MODEL):
        raise Refused(
            f"{folder.name}: config.json describes a model of {size} values, but the weights have "
            f"{num_bytes} bytes: the file is damaged, or belongs to another model."
        )


def _with_adapter(model: PreTrainedModel, adapter_folder: str) -> PreTrainedModel:
    if not adapter_folder:
        return model
    try:
        merged = adapter.merge(model, Path(adapter_folder))
    except Exception as error:  # an untried adapter may fail in any way
        raise Refused(f"The adapter {Path(adapter_folder).name}: {error}") from error
    return merged.requires_grad_(False)


def _check_weights(name: str, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Checks that every weight came from the checkpoint, and is a number.

    The output layer's bias may be `-inf`: a mask over ids that are never generated.

    Raises:
        Refused: one did not, and would be random, or is not.
    """
    for key, found, wanted in sorted(report["mismatched_keys"]):
        raise Refused(f"{name}: {key} has the shape {list(found)}, not {list(wanted)}.")
    if missing := sorted(report["missing_keys"]):
        raise Refused(
            f"{name} lacks {len(missing)} of the weights of {type(model).__name__}, among them "
            f"{', '.join(missing[:3])}."
        )
    if unexpected := sorted(report["unexpected_keys"]):
        logger.warning(
            "%s has %d weights that %s does not use, among them %s",
            name,
            len(unexpected),
            type(model).__name__,
            ", ".join(unexpected[:3]),
        )
    head = model.get_output_embeddings()
    mask = None if head is None else getattr(head, "bias", None)
    for key, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.is_meta or not weight.numel():
            continue
        lowest, highest = weight.detach().aminmax()  # NaN is both; nothing is added up or copied
        if weight is mask and highest.isfinite() and lowest == -torch.inf:
            count = int((weight == -torch.inf).sum())
            logger.info("%s: %s is -inf for %d ids, which are never generated", name, key, count)
        elif not (lowest.isfinite() and highest.isfinite()):
            raise Refused(
                f"{name}: {key} contains NaN, or values that are infinite as "
                f"{str(weight.dtype).removeprefix('torch.')}."
            )


def _context_length(config: PreTrainedConfig, settings: EngineSettings) -> int:
    lengths = (getattr(config, name, None) for name in CONTEXT_FIELDS)
    made_for = next((length for length in lengths if length), DEFAULT_CONTEXT_TOKENS)
    made_for = min([made_for, *_rope_lengths(config)])
    wanted = settings.max_context_tokens or DEFAULT_CONTEXT_TOKENS
    return min(made_for, wanted)


def _rope_lengths(config: PreTrainedConfig) -> list[int]:
    """Returns the lengths from which on rotary positions depend on the length.

    There, keys that are in the cache were rotated otherwise than `generate`, which may have seen
    the whole prompt at once, rotates them. Below, such a model is like any other.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer = [value for value in parameters.values() if isinstance(value, dict)]
    lengths = []
    for rope in by_layer or [parameters]:
        kind = rope.get("rope_type", "default")
        if "dynamic" in kind or kind == "longrope":
            original = rope.get("original_max_position_embeddings")
            lengths.append(original or config.max_position_embeddings)
    return lengths


def layer_windows(config: PreTrainedConfig) -> list[int | None]:
    """Returns the sliding window of each layer, None for full attention.

    Raises:
        Refused: a layer is of a kind that slots do not hold.
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
            f"it has layers of type {', '.join(sorted(unknown))}, not only "
            f"{' and '.join(sorted(LAYER_TYPES))}"
        )
    return [window if kind == "sliding_attention" else None for kind in types]


def default_config(loaded: LoadedModel, settings: EngineSettings) -> GenerationConfig:
    """Resolves what an empty request uses: the model's own defaults, then Hugging Face's.

    `max_new_tokens` is ours: Hugging Face's default of 20 tokens in total would cut
    most answers short.

    Raises:
        Refused: the model's own defaults ask for what the sampler does not do, so that its
            results would differ from `generate`'s.
    """
    model = loaded.model
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
    # As in `generate`, the model's own `max_length` counts where it has no `max_new_tokens`.
    own_length = None if resolved.max_new_tokens else model.generation_config.max_length
    if own_length is not None:
        own_length = min(own_length, loaded.context_length)
    config = GenerationConfig(
        max_new_tokens=resolved.max_new_tokens or settings.default_max_new_tokens,
        max_length=own_length,
        **fields,
    )
    _check_beams(config, settings)
    rows = model.config.get_text_config(decoder=True).vocab_size
    _check_applicable(config, settings.vocabulary_size or rows)
    if outside := default_fields.outside(config):
        raise Refused(
            f"generation_config.json sets {'; '.join(outside)}. Change it in the file, or remove "
            "it to serve the model with the default."
        )
    return config


def _check_beams(config: GenerationConfig, settings: EngineSettings) -> None:
    """Checks that the defaults alone are a request that could be served.

    Raises:
        Refused: they are not.
    """
    if config.num_beams > settings.max_running_sequences:
        raise Refused(
            f"generation_config.json sets num_beams to {config.num_beams}, and a step has "
            f"{settings.max_running_sequences} rows; raise max_running_sequences."
        )
    if config.num_beams > 1 and config.guidance_scale != 1.0:
        raise Refused(
            "generation_config.json sets num_beams and guidance_scale; this server applies one of "
            "them at a time. Remove one from the file."
        )


def _check_applicable(config: GenerationConfig, vocabulary_size: int) -> None:
    """Builds and applies the processors once, so that no request is the first to fail.

    Warpers of a model that is greedy by default are not among them: `generate` does not read
    their fields either. A request that samples needs values of its own where theirs are wrong.

    Raises:
        Refused: one cannot be built, or names ids that the model does not have.
    """
    # Guidance needs a second row, and has nothing that could be wrong.
    config = msgspec.structs.replace(config, guidance_scale=1.0)
    revision = RevisionRows(vocabulary_size, ())
    for length in (1, 2):
        token_ids = [0] * length
        choosing = Choosing(config, 0, revision, tuple(token_ids), length + 1)
        try:
            processors.scores(choosing, token_ids, torch.zeros(vocabulary_size))
        except processors.ProcessorError as error:
            raise Refused(f"generation_config.json cannot be applied: {error.__cause__}") from error
