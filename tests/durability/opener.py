"""A process that opens stores, one after the other, and closes them.

python -m tests.durability.opener STORE_FILE ...
"""

import sys

from tests.durability.writer import BASE
from tokenizer_service.store import Store


def main(*files: str) -> None:
    for file in files:
        store = Store(f"sqlite:///{file}", BASE, observe=lambda *_: None)
        store.verified()
        store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
