"""Contender: `model.generate` of transformers, all prompts as one batch, in process."""

import sys
import time

import torch
from transformers import AutoModelForCausalLM

from bench.peers.rounds import answer
from bench.workload import Measurement


def main() -> None:
    """Loads the model named by the first argument, in the dtype named by the second."""
    folder, dtype = sys.argv[1:3]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def run(prompts: list[list[int]], new_tokens: int) -> Measurement:
        ids = torch.tensor(prompts)
        start = time.perf_counter()
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        wall = time.perf_counter() - start
        return Measurement(wall, wall, output[:, ids.shape[1] :].tolist())

    answer(run)


if __name__ == "__main__":
    main()
