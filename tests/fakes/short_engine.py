"""The engine as it is, but once it serves, memory is never sufficient for one token of llamas."""

import sys

import torch
from transformers.models.llama.modeling_llama import LlamaModel

from model_service.engine import process

POISON = 13

if __name__ == "__main__":
    build, forward = process.build, LlamaModel.forward

    def build_and_arm(*arguments):
        """Lets memory run out from now on."""
        built = build(*arguments)
        LlamaModel.forward = short
        return built

    def short(self, input_ids=None, **arguments):
        """Runs out of memory where the token is among those that pass."""
        if input_ids is not None and bool((input_ids == POISON).any()):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids, **arguments)

    process.build = build_and_arm
    sys.exit(process.main())
