"""Computes the perplexity of a text of any length, in windows that overlap by half.

    python examples/perplexity.py < book.txt

Each token is scored once, after at least half a window of the text before it, where there is that
much. The windows go to the service in one call, which computes no logits for tokens that are
context only.
"""

import sys

from lockstep_client import Lockstep


def main() -> None:
    """Prints the perplexity of standard input."""
    with Lockstep() as ls:
        print(f"{ls.perplexity(sys.stdin.read(), progress=True):.2f}")


if __name__ == "__main__":
    main()
