"""Linear layers with weights in int8, in place of the ones that were loaded."""

import logging

import torch
from torch import nn
from transformers import PreTrainedModel

from checkpoints import CheckpointError
from model_service.engine.layers import panels
from model_service.engine.layers.growing_head import GrowingHead
from model_service.engine.layers.merged_linear import MergedLinear
from model_service.engine.load.loader import Unavailable
from model_service.engine.run.decode_graph import operators
from model_service.engine.run.decode_graph.code_folder import CodeFolder

logger = logging.getLogger(__name__)


def round_weights(model: PreTrainedModel, compile_cache: str) -> None:
    """Rounds the weights of all linear layers of a model, in place.

    Args:
        model: the model, whose linear layers were packed.
        compile_cache: folder of compiled code; empty for the cache folder.

    Raises:
        Unavailable: a layer is not a linear one, or there is no operator for this machine.
    """
    _check_layers(model)
    _load_operators(compile_cache)
    count = 0
    for reason in panels.adopt(model, "int8"):
        if reason is not None:
            raise Unavailable(f"--weights int8: a layer keeps its own weights, because {reason}.")
        count += 1
    logger.info("%d products have weights in int8", count)


def _check_layers(model: PreTrainedModel) -> None:
    """Checks that what remains of the weights would be in the packed layers.

    Raises:
        Unavailable: it is not.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise Unavailable("--weights int8 is for models on the CPU; set --device-map cpu.")
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise Unavailable(
            "--weights int8 cannot be used with a model in fp16; set --dtype bf16 or fp32."
        )
    packed = {id(layer.weight) for layer in panels.packed_layers(model)}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | GrowingHead | MergedLinear):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1 and id(parameter) not in packed:
                raise Unavailable(
                    f"--weights int8 is for models whose weights are in linear layers, but "
                    f"{name}.{own} belongs to a {type(module).__name__} that is not a plain one."
                )


def _load_operators(compile_cache: str) -> None:
    folder = CodeFolder(compile_cache)
    try:
        found = folder.find(operators.entry_name())
        if found is None:
            logger.info("Operators for int8 are compiled, once for this machine")
            found = operators.build_once(folder.writable())
        operators.load(found)
    except (operators.NoCompiler, CheckpointError, OSError) as error:
        raise Unavailable(
            f"--weights int8 needs operators that have to be compiled: {error}"
        ) from (error)
    finally:
        folder.close()
