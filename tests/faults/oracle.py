"""What each request gives alone, by transformers in float32."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.checkpoint_factory import VOCABULARY_SIZE


@dataclass(frozen=True)
class Asked:
    """A greedy request.

    Attributes:
        prompt: its ids; the first two are its own among all requests.
        new_tokens: how many tokens it gets.
        penalty: `repetition_penalty`.
    """

    prompt: tuple[int, ...]
    new_tokens: int
    penalty: float


class Oracle:
    """Draws requests and knows their answers."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        self._known: dict[Asked, list[int]] = {}

    def draw(self, rng: random.Random) -> Asked:
        """Draws a request of one of 200 prompts, some of which begin alike."""
        plain = random.Random(rng.randrange(200))
        length = plain.randint(2, 60)
        shared = [5 + index for index in range(plain.choice([0, 0, 16, 32]))]
        prompt = [plain.randrange(3, VOCABULARY_SIZE) for _ in range(length)]
        penalty = plain.choice([1.0, 1.3])
        return Asked((*shared, *prompt), plain.choice([3, 12, 40]), penalty)

    def answer(self, asked: Asked) -> list[int]:
        """Returns its new tokens."""
        if asked not in self._known:
            with torch.inference_mode():
                out = self._model.generate(
                    torch.tensor([asked.prompt]),
                    attention_mask=torch.ones(1, len(asked.prompt), dtype=torch.int64),
                    max_new_tokens=asked.new_tokens,
                    repetition_penalty=asked.penalty,
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            self._known[asked] = out[0, len(asked.prompt) :].tolist()
        return self._known[asked]
