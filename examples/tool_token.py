"""Gives running services a token with trained vectors, and uses it at once.

    python examples/tool_token.py "<search>" --vectors search.npy

The file has what fine-tuning gave the token: `[1, H]`, or `[2, H]` with the row of the output layer
for a model whose layers are not tied. The token stays: a vocabulary only grows.
"""

import argparse
from pathlib import Path

import numpy as np

from lockstep_client import AddedTokens, Lockstep, NewToken


def add_token(ls: Lockstep, content: str, vectors: np.ndarray) -> AddedTokens:
    """Adds a control token with its vectors. Adding it again with the same ones changes nothing.

    Args:
        ls: the client.
        content: its text.
        vectors: `[1, H]` or `[2, H]` float32: the row that the model reads, and the row of its
            output layer.

    Raises:
        TokenExists: there is such a token with other vectors or flags.
    """
    values = {"input_values": vectors[0], "output_values": vectors[-1]}
    return ls.vocabulary.add_tokens([NewToken(content, special=True, **values)])


def main() -> None:
    """Adds the token and shows that text, model and distribution know it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("token")
    parser.add_argument("--vectors", type=Path, required=True)
    arguments = parser.parse_args()
    with Lockstep() as ls:
        added = add_token(ls, arguments.token, np.load(arguments.vectors))
        (token_id,) = added.ids
        print(f"{arguments.token} is id {token_id} from revision {added.vocabulary.revision} on")

        batch = ls.tokenizer.encode([f"Look it up: {arguments.token}"], parse_special_tokens=True)
        print("as text:  ", batch.token_ids)

        after = ls.model.compute_logits(batch).logits  # [1, V], with a column for the new id
        print("columns:  ", after.shape[-1], "logit:", round(float(after[0, token_id]), 3))

        out = ls.model.generate(batch, max_new_tokens=8, do_sample=False)
        print("continues:", ls.tokenizer.decode(out.sequences[0]))


if __name__ == "__main__":
    main()
