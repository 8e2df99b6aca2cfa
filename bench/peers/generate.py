"""Contender: `model.generate` of transformers, all prompts as one batch, in process."""

import sys
from typing import Any

from bench.peers.rounds import Round, answer

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
FROM_GGUF = False


class _Clock:
    """A streamer of transformers: notes the tokens of every step. Prompts come first."""

    def __init__(self, request: Round) -> None:
        self._request = request
        self._is_prompt = True

    def put(self, value: Any) -> None:
        """Takes the ids of one step, `[B]`, or those of the prompts."""
        if not self._is_prompt:
            for index, token_id in enumerate(value.tolist()):
                self._request.note(index, [token_id])
        self._is_prompt = False

    def end(self) -> None:
        """Takes the end."""


def main() -> None:
    """Loads the model named by the first argument, in the precision named by the second."""
    import torch
    from transformers import AutoModelForCausalLM

    folder, precision = sys.argv[1:3]
    dtype = getattr(torch, PRECISIONS[precision])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def run(request: Round) -> None:
        ids = torch.tensor(request.prompts)
        request.start()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request.new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=_Clock(request),
        )

    answer(run)


if __name__ == "__main__":
    main()
