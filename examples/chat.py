"""Holds a conversation, and prints the answers while they are made.

    python examples/chat.py

An empty line or the end of the input ends it. When the context is full, the oldest question and
its answer are forgotten.
"""

from lockstep_client import Lockstep
from lockstep_client.exceptions import ContextLengthExceeded


def answer(ls: Lockstep, messages: list[dict[str, str]]) -> str:
    """Prints the answer to a conversation piece by piece, and returns it.

    Ctrl-C inside ends the answer; the server frees its place at once.
    """
    with ls.stream(messages=messages, max_new_tokens=128, do_sample=True, top_p=0.9) as stream:
        for piece in stream:  # never half a character
            print(piece, end="", flush=True)
    print()
    return stream.result.text


def main() -> None:
    """Asks, answers, and remembers both."""
    messages: list[dict[str, str]] = []
    with Lockstep() as ls:
        while question := read_line():
            messages.append({"role": "user", "content": question})
            while True:
                try:
                    text = answer(ls, messages)
                    break
                except ContextLengthExceeded:
                    if len(messages) == 1:
                        raise
                    del messages[:2]
            messages.append({"role": "assistant", "content": text})


def read_line() -> str:
    """Asks for a line; the end of the input is an empty one."""
    try:
        return input("> ")
    except EOFError:
        return ""


if __name__ == "__main__":
    main()
