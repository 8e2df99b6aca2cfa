"""Computes the perplexity of a text of any length, in windows that overlap by half.

    python examples/perplexity.py < book.txt

Each token is scored once, after at least half a window of the text before it, where there is that
much. The windows go to the service in one call, which computes no logits for tokens that are
context only.
"""

import math
import sys

from lockstep_client import Lockstep


def perplexity(ls: Lockstep, text: str, window: int | None = None) -> float:
    """Returns exp of the mean negative log-probability of the tokens after the first.

    Args:
        ls: the client.
        text: of at least two tokens.
        window: most tokens that the model sees at once; the model's context unless given.
    """
    window = window or ls.model.info().context_length
    batch = ls.tokenizer.encode([text])
    (ids,) = batch.token_ids
    stride = max(window // 2, 1)
    contexts, parts = [], []
    for start in range(1, len(ids), stride):
        end = min(start + stride, len(ids))
        contexts.append(ids[max(end - window, 0) : start])
        parts.append(ids[start:end])
    scored = ls.model.score(contexts, parts, vocabulary=batch.vocabulary)
    return math.exp(-sum(row.logits_logprob for row in scored) / (len(ids) - 1))


def main() -> None:
    """Prints the perplexity of standard input."""
    with Lockstep() as ls:
        print(f"{perplexity(ls, sys.stdin.read()):.2f}")


if __name__ == "__main__":
    main()
