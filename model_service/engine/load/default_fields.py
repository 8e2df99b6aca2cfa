"""A model's own defaults: Hugging Face's `GenerationConfig` to the fields of ours."""

from typing import Any

from transformers import GenerationConfig as HFGenerationConfig
from transformers import WatermarkingConfig

from model_service.protocol.number import Number, as_written
from model_service.protocol.parameter import Choice, IdList, Parameter
from model_service.protocol.parameters import CONFIG_PARAMETERS, GenerationConfig
from model_service.protocol.processor_arguments import GreenListWatermark

FIELDS: dict[str, Parameter] = {
    row.hugging_face: row
    for row in CONFIG_PARAMETERS.values()
    if row.hugging_face is not None and row.in_file
}
"""Hugging Face's name, and the row of our field."""


def read(config: HFGenerationConfig) -> dict[str, Any]:
    """Reads the fields that the sampler applies; those that are None keep our default.

    Args:
        config: with Hugging Face's defaults filled in.

    Raises:
        ValueError: a value does not have the form that Hugging Face documents.
    """
    given = [(row, getattr(config, theirs, None)) for theirs, row in FIELDS.items()]
    return {row.name: _read(row, value) for row, value in given if value is not None}


def outside(config: GenerationConfig) -> list[str]:
    """Describes numbers in a model's own defaults that have an effect and no request could give.

    Hugging Face takes some of them, though what they lead to is no longer a number.
    """
    return [
        f"{row.hugging_face} to {value:g}, which must be in {row.kind}"
        for row in FIELDS.values()
        if isinstance(row.kind, Number)
        and (value := getattr(config, row.name)) not in (None, row.off)
        and value not in row.kind
        and all(need.is_met(config) for need in row.needs)
    ]


def _read(row: Parameter, value: Any) -> Any:
    match row.kind:
        case Number() as allowed if allowed.whole:
            return min(int(value), int(allowed.high)) if row.is_clipped else int(value)
        case Number():
            return as_written(float(value))
        case "switch":
            return bool(value)
        case Choice(choices):
            return value if isinstance(value, str) and value in choices else bool(value)
        case "token_id":
            return int(value)
        case IdList():
            return (value,) if isinstance(value, int) else tuple(value)
        case "runs":
            return tuple(map(tuple, value))
        case "run_biases":
            pairs = value.items() if isinstance(value, dict) else value
            return tuple((tuple(ids), as_written(float(bias))) for ids, bias in pairs)
        case "decay":
            start_index, factor = value
            return int(start_index), as_written(float(factor))
        case "texts":
            return _texts(value)
        case "seconds":
            return max(float(value), 1e-9)  # time that was over at the start ends after a token
    return _watermark(value)


def _texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not all(texts):
        raise ValueError("stop_strings has an empty text")
    return texts


def _watermark(value: Any) -> GreenListWatermark:
    if not isinstance(value, WatermarkingConfig):
        raise ValueError(f"watermarking_config of type {type(value).__name__} is not applied")
    return GreenListWatermark(
        greenlist_ratio=as_written(value.greenlist_ratio),
        bias=as_written(value.bias),
        hashing_key=value.hashing_key,
        self_hash=value.seeding_scheme == "selfhash",
        context_width=value.context_width,
    )
