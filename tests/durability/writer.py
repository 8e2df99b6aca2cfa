"""A process that keeps one real store and writes revisions to it.

    python -m tests.durability.writer STORE_FILE COUNT [trusting] [PRAGMA=VALUE ...]

Every acknowledged call becomes an event of the trace. A call that fails is made again
with the same key, as a caller would. To show what weaker stores lose, one can be made
trusting, so that it goes on after an error as if there was none, and the pragmas
replace its own.
"""

import os
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rpc.errors import ServiceError
from tests.durability.recorder import acknowledge
from tokenizer_service.store import Call, Store
from tokenizer_service.store.sqlite import SQLite
from vocabulary import AddedToken, Change, Link, NewToken, Reference, chain

BASE = Reference("tiny", 0, "0" * 64, 10)
MAX_ATTEMPTS = 20
RETRY_S = 0.01


def history(count: int) -> Iterator[tuple[Link | None, Call, bytes]]:
    """Calls as they arrive: most make a small revision, some a large one, some none.

    The same for the process that writes and the test that checks.
    """
    draw = random.Random(count)
    newest = BASE
    for number in range(count):
        call = Call.of(f"00000000-0000-0000-0000-{number:012}", b"request %d" % number)
        response = draw.randbytes(draw.choice((40, 90, 200)))
        if number and draw.random() < 0.1:
            yield None, call, response
            continue
        # Rows of some revisions fill several pages.
        values = draw.randbytes(draw.choice((0, 0, 0, 0, 64, 6000)))
        tokens = tuple(
            NewToken(
                id=newest.size + index,
                token=AddedToken(f"<{number}.{index}>", special=True),
                initialization="values" if values else "mean_of_pieces",
                input_values=values,
            )
            for index in range(draw.choice((1, 1, 2)))
        )
        change = Change(tokens=tokens)
        after = chain.follow(newest, change)
        yield Link(newest.fingerprint, change, after), call, response
        newest = after


def write(store: Store, count: int, acknowledged: object) -> None:
    """Makes the calls of `history` that have no reply yet."""
    for link, call, response in history(count):
        for attempt in range(MAX_ATTEMPTS):
            try:
                if store.reply(call) is None:
                    store.append(link, call, response)
                break
            except ServiceError:
                if attempt == MAX_ATTEMPTS - 1:
                    raise
                time.sleep(RETRY_S)
        acknowledged(call.idempotency_key.encode())


class _WeakConnection(sqlite3.Connection):
    """Replaces pragmas of the store on their way to SQLite."""

    pragmas: dict[str, str]

    def execute(self, sql, *parameters):
        words = sql.replace("=", " ").split()
        if words[0] == "PRAGMA" and words[1] in self.pragmas:
            sql = f"PRAGMA {words[1]}={self.pragmas[words[1]]}"
        return super().execute(sql, *parameters)


def main(file: str, count: str, *pragmas: str) -> None:
    if pragmas[:1] == ("trusting",):
        SQLite.distrust = lambda *_: None
        pragmas = pragmas[1:]
    _WeakConnection.pragmas = dict(pragma.split("=") for pragma in pragmas)
    sqlite3.dbapi2.connect = partial(sqlite3.dbapi2.connect, factory=_WeakConnection)
    trace = Path(os.environ["DISK_TRACE"])
    store = Store(f"sqlite:///{file}", BASE, observe=lambda *_: None)
    write(store, int(count), partial(acknowledge, trace))
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
