"""A model's own defaults: Hugging Face's `GenerationConfig` to the fields of ours."""

from collections.abc import Callable
from typing import Any

from transformers import GenerationConfig as HFGenerationConfig
from transformers import WatermarkingConfig

from model_service.protocol.processor_arguments import GreenListWatermark


def read(config: HFGenerationConfig) -> dict[str, Any]:
    """Reads the fields that the sampler applies; those that are None keep our default.

    Args:
        config: with Hugging Face's defaults filled in.

    Raises:
        ValueError: a value does not have the form that Hugging Face documents.
    """
    fields: dict[str, Any] = {}
    for theirs, (ours, convert) in FIELDS.items():
        value = getattr(config, theirs, None)
        if value is not None:
            fields[ours] = convert(value)
    return fields


def _ids(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _runs(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(run) for run in value)


def _at_most_32(value: Any) -> int:
    return min(int(value), 32)  # the schema's bound of what changes speed only


def _seconds(value: Any) -> float:
    return max(float(value), 1e-9)  # time that was over before it began ends after a token, too


def _texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not all(texts):
        raise ValueError("stop_strings has an empty text")
    return texts


def _sequence_bias(value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    pairs = value.items() if isinstance(value, dict) else value
    return tuple((tuple(ids), float(bias)) for ids, bias in pairs)


def _decay(value: Any) -> tuple[int, float]:
    start_index, factor = value
    return int(start_index), float(factor)


def _watermark(value: Any) -> GreenListWatermark:
    if not isinstance(value, WatermarkingConfig):
        raise ValueError(f"watermarking_config of type {type(value).__name__} is not applied")
    return GreenListWatermark(
        greenlist_ratio=value.greenlist_ratio,
        bias=value.bias,
        hashing_key=value.hashing_key,
        self_hash=value.seeding_scheme == "selfhash",
        context_width=value.context_width,
    )


FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "do_sample": ("do_sample", bool),
    "temperature": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "top_h": ("top_h", float),
    "min_p": ("min_p", float),
    "typical_p": ("typical_p", float),
    "epsilon_cutoff": ("epsilon_cutoff", float),
    "eta_cutoff": ("eta_cutoff", float),
    "num_beams": ("num_beams", int),
    "length_penalty": ("length_penalty", float),
    "early_stopping": ("early_stopping", lambda value: value if value == "never" else bool(value)),
    "guidance_scale": ("guidance_scale", float),
    "sequence_bias": ("sequence_bias", _sequence_bias),
    "encoder_repetition_penalty": ("encoder_repetition_penalty", float),
    "repetition_penalty": ("repetition_penalty", float),
    "no_repeat_ngram_size": ("no_repeat_ngram_size", int),
    "encoder_no_repeat_ngram_size": ("encoder_no_repeat_ngram_size", int),
    "bad_words_ids": ("bad_words_ids", _runs),
    "min_length": ("min_length", int),
    "min_new_tokens": ("min_new_tokens", int),
    "forced_bos_token_id": ("forced_bos_token_id", int),
    "forced_eos_token_id": ("forced_eos_token_ids", _ids),
    "remove_invalid_values": ("remove_invalid_values", bool),
    "exponential_decay_length_penalty": ("exponential_decay_length_penalty", _decay),
    "suppress_tokens": ("suppress_tokens", _ids),
    "begin_suppress_tokens": ("begin_suppress_tokens", _ids),
    "watermarking_config": ("green_list_watermark", _watermark),
    "renormalize_logits": ("renormalize_logits", bool),
    "max_time": ("max_time", _seconds),
    "eos_token_id": ("eos_token_ids", _ids),
    "stop_strings": ("stop_strings", _texts),
    "prompt_lookup_num_tokens": ("prompt_lookup_num_tokens", _at_most_32),
    "max_matching_ngram_size": ("max_matching_ngram_size", _at_most_32),
}
"""Hugging Face's name to ours, and the conversion."""
