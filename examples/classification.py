"""Classifies texts: takes the label that the model expects most after each of them.

    python examples/classification.py "What a wonderful film." "I want my money back."

Nothing is generated. The probability of each label is computed exactly, also of labels of
several tokens, and all of them in one call.
"""

import sys

import numpy as np

from lockstep_client import Lockstep

LABELS = (" positive", " negative")
QUESTION = "Review: {text}\nThe review is"


def label_probabilities(
    ls: Lockstep, texts: list[str], labels: tuple[str, ...] = LABELS, question: str = QUESTION
) -> np.ndarray:
    """Returns how probable each label is after each text, `[texts, labels]` float64."""
    prompts = ls.tokenizer.encode([question.format(text=text) for text in texts for _ in labels])
    ids = ls.tokenizer.encode(labels, add_special_tokens=False).token_ids
    scored = ls.model.score(prompts, ids * len(texts))
    log_p = np.array([row.logits_logprob for row in scored]).reshape(len(texts), len(labels))
    relative = np.exp(log_p - log_p.max(1, keepdims=True))
    return relative / relative.sum(1, keepdims=True)


def main() -> None:
    """Prints the label of each text, and its share."""
    texts = sys.argv[1:]
    with Lockstep() as ls:
        for text, shares in zip(texts, label_probabilities(ls, texts), strict=True):
            print(f"{LABELS[shares.argmax()]:<10} {shares.max():6.1%}  {text}")


if __name__ == "__main__":
    main()
