"""Chooses the tokens itself: Mirostat 2.0, a sampler that the server does not have.

    python examples/sampling_loop.py "Once upon a time"

Mirostat keeps the surprise of a text near a target, in bits: it drops tokens that would surprise
more than a limit, draws from the others, and moves the limit by how far the draw was off
(Basu et al., 2021, https://arxiv.org/abs/2007.14966). The server keeps the KV cache and sends one
row of logits for each token.
"""

import sys

import numpy as np

from lockstep_client import Lockstep


class Mirostat:
    """The sampler.

    Attributes:
        target: surprise to hold, in bits.
        limit: surprise above which tokens are dropped now, in bits.
    """

    def __init__(self, target: float = 3.0, rate: float = 0.1, seed: int = 0) -> None:
        self.target = target
        self.limit = 2 * target
        self._rate = rate
        self._random = np.random.default_rng(seed)

    def choose(self, logits: np.ndarray) -> int:
        """Draws a token from one row of logits, `[V]` float32."""
        shifted = logits.astype(np.float64) - logits.max()
        surprise = (np.log(np.exp(shifted).sum()) - shifted) / np.log(2)
        kept = np.where(surprise <= max(self.limit, surprise.min()), np.exp2(-surprise), 0.0)
        token = int(self._random.choice(len(kept), p=kept / kept.sum()))
        self.limit -= self._rate * (surprise[token] - self.target)
        return token


def continuation(ls: Lockstep, prompt: str, length: int, sampler: Mirostat) -> str:
    """Continues a text by up to `length` tokens."""
    end = set(ls.model.info().eos_token_ids)
    batch = ls.tokenizer.encode([prompt])
    token_ids: list[int] = []
    with ls.model.open_session(batch, max_length=len(batch.token_ids[0]) + length) as session:
        while len(token_ids) < length:
            token_ids.append(sampler.choose(session.logits[0]))
            if token_ids[-1] in end:
                break
            session.step([token_ids[-1]])
    return ls.tokenizer.decode(token_ids, skip_special_tokens=True)


def main() -> None:
    """Continues the text of the command line."""
    with Lockstep() as ls:
        print(continuation(ls, sys.argv[1], 48, Mirostat()))


if __name__ == "__main__":
    main()
