"""Classifier-free guidance, once as a keyword and once as a loop of one's own.

    python examples/guidance.py "The weather today is" --away-from "The terrible weather today is"

A token scores as much better after the prompt than after the negative prompt, times the weight.
The loop is what to start from for a guidance that the server does not have: two rows of one
session, one step for both.
"""

import argparse

import numpy as np

from lockstep_client import Lockstep


def by_keyword(ls: Lockstep, prompt: str, negative: str, weight: float, length: int) -> list[int]:
    """Lets the server do it; texts are encoded for the keyword too."""
    answer = ls.generate(
        prompt,
        negative_prompt=negative,
        guidance_scale=weight,
        max_new_tokens=length,
        do_sample=False,
    )
    return answer.token_ids


def by_steps(ls: Lockstep, prompt: str, negative: str, weight: float, length: int) -> list[int]:
    """Does it with the logits of a session."""
    end = set(ls.model.info().eos_token_ids)
    batch = ls.tokenizer.encode([prompt, negative])
    token_ids: list[int] = []
    with ls.model.open_session(batch) as session:
        while len(token_ids) < length and not end.intersection(token_ids):
            wanted, unwanted = session.logits  # to normalize them would add a constant to each
            token_ids.append(int(np.argmax(unwanted + weight * (wanted - unwanted))))
            session.step([token_ids[-1]] * 2)
    return token_ids


def main() -> None:
    """Prints the continuation without guidance, and with it in both ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt")
    parser.add_argument("--away-from", required=True)
    parser.add_argument("--weight", type=float, default=2.0)
    parser.add_argument("--length", type=int, default=24)
    arguments = parser.parse_args()
    guided = arguments.prompt, arguments.away_from, arguments.weight, arguments.length
    with Lockstep() as ls:
        plain = ls.generate(arguments.prompt, max_new_tokens=arguments.length, do_sample=False)
        print("without:   ", plain.text)
        print("by keyword:", ls.tokenizer.decode(by_keyword(ls, *guided)))
        print("by steps:  ", ls.tokenizer.decode(by_steps(ls, *guided)))


if __name__ == "__main__":
    main()
