"""Contrastive decoding: what a large model expects more than a small one does.

    python -m model_service --model SMALLER --port 50062 --health-port 50162 --metrics-port 9462
    python examples/contrastive_decoding.py "The capital of France is" --amateur localhost:50062

Among the tokens that the expert finds at least a tenth as probable as its best one, it takes the
one whose probability leads furthest over the amateur's (Li et al., 2023,
https://arxiv.org/abs/2210.15097). Both model services follow one tokenizer service, so that ids
mean the same to both; a service with another vocabulary refuses the batch.
"""

import argparse

import numpy as np

from lockstep_client import Lockstep


def continuation(
    expert: Lockstep, amateur: Lockstep, prompt: str, length: int, alpha: float = 0.1
) -> list[int]:
    """Continues a text by up to `length` tokens.

    Args:
        expert: a client of the tokenizer service and the better model.
        amateur: a client of the same tokenizer service and the weaker model.
        prompt: the text.
        length: most tokens to add.
        alpha: share of the expert's highest probability that a token needs, (0, 1].
    """
    end = set(expert.model.info().eos_token_ids)
    batch = expert.tokenizer.encode([prompt])
    token_ids: list[int] = []
    with expert.model.open_session(batch) as strong, amateur.model.open_session(batch) as weak:
        while len(token_ids) < length and not end.intersection(token_ids):
            wanted, unwanted = strong.logits[0], weak.logits[0]
            plausible = wanted >= wanted.max() + np.log(alpha)
            token_ids.append(int(np.argmax(np.where(plausible, wanted - unwanted, -np.inf))))
            for session in (strong, weak):
                session.step([token_ids[-1]])
    return token_ids


def main() -> None:
    """Prints what the expert says alone, and against the amateur."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt")
    parser.add_argument("--amateur", required=True, help="address of the weaker model's service")
    parser.add_argument("--length", type=int, default=24)
    arguments = parser.parse_args()
    with Lockstep() as expert, Lockstep(model=arguments.amateur) as amateur:
        alone = expert.generate(arguments.prompt, max_new_tokens=arguments.length, do_sample=False)
        print("alone:   ", alone.text)
        token_ids = continuation(expert, amateur, arguments.prompt, arguments.length)
        print("contrast:", expert.tokenizer.decode(token_ids))


if __name__ == "__main__":
    main()
