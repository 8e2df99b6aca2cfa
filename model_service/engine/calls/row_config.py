"""A call's configuration as one of its rows has to apply it."""

import msgspec

from model_service.protocol import SequenceSpec
from model_service.protocol.parameters import CONFIG_PARAMETERS, GenerationConfig
from model_service.protocol.processor_arguments import ProcessorSpec, decode


def of_row(config: GenerationConfig, spec: SequenceSpec) -> GenerationConfig:
    """Returns the configuration with the lengths of one row.

    Lengths that count padding become lengths without it, less the padding: no
    processor ever sees a pad id. With padding, no prompt has one token, so none
    has a first token that is forced.
    """
    if spec.max_new_tokens not in (None, config.max_new_tokens):
        config = msgspec.structs.replace(config, max_new_tokens=spec.max_new_tokens)
    if spec.num_padding == 0:
        return config
    return msgspec.structs.replace(
        config,
        min_length=max(0, config.min_length - spec.num_padding),
        forced_bos_token_id=None,
        processors=tuple(
            _without_padding(processor, spec.num_padding)
            for processor in config.processors
            if processor.name != "forced_bos_token_id"
        ),
    )


def _without_padding(spec: ProcessorSpec, num_padding: int) -> ProcessorSpec:
    if spec.name != "min_length":
        return spec
    arguments = decode(spec.arguments_json, CONFIG_PARAMETERS[spec.name].arguments)
    shorter = {"min_length": max(0, arguments.min_length - num_padding)}
    return ProcessorSpec(spec.name, msgspec.json.encode(shorter).decode())
