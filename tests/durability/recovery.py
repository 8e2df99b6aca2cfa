"""Opens what a power failure left, with the real store, and says what is wrong with it."""

import hashlib
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability.disk import State, replay
from tests.durability.recorder import Event, Operation
from tokenizer_service.store import Store
from vocabulary import Reference


@dataclass(frozen=True, slots=True)
class Expected:
    """A call and what its reply promised.

    Attributes:
        key: its idempotency key.
        response: its reply.
        fingerprint: of the newest revision after it.
        revision: number of that.
    """

    key: str
    response: bytes
    fingerprint: str
    revision: int


@dataclass
class Findings:
    """What was looked at and what was wrong.

    Attributes:
        boundaries: operations after each of which the power failed.
        states: states that were opened, no two of them equal.
        acknowledged: calls acknowledged in all.
        problems: how often, by what it is.
        examples: the first of each.
    """

    boundaries: int = 0
    states: int = 0
    acknowledged: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        self.problems[kind] += 1
        self.examples.setdefault(kind, example)


class Recovery:
    """Checks the states of one trace."""

    def __init__(
        self, base: Reference, calls: Iterable[Expected], file: Path, scratch: Path
    ) -> None:
        """Prepares.

        Args:
            base: revision 0 of the store.
            calls: all that were made, in order.
            file: the store in the trace, below `root`.
            scratch: folder where states are put.
        """
        self._base = base
        self._calls = list(calls)
        self._file = file
        self._root = file.parent
        self._scratch = scratch / "state"
        self._seen: dict[bytes, int | str] = {}

    def check(
        self, events: list[Event], draw: random.Random, *, random_states: int, stop: bool = False
    ) -> Findings:
        """Lets the power fail after every event.

        Args:
            events: the trace.
            draw: chance.
            random_states: how many at each boundary, besides the extremes.
            stop: whether to stop at the first thing that is wrong.
        """
        findings = Findings()
        for event, disk in replay(str(self._root), events):
            if event.operation is Operation.ACKNOWLEDGE:
                assert event.data.decode() == self._calls[findings.acknowledged].key
                findings.acknowledged += 1
            findings.boundaries += 1
            for state in disk.states(draw, random_states):
                self._check_state(state, findings)
            if stop and findings.problems:
                break
        findings.states = len(self._seen)
        return findings

    def _check_state(self, state: State, findings: Findings) -> None:
        found = self.calls_in(state)
        acknowledged = findings.acknowledged
        where = f"after {findings.boundaries} operations, {acknowledged} acknowledged: {found}"
        if isinstance(found, str):
            findings.add("torn", where)
        elif found < acknowledged:
            findings.add("lost", where)
        elif found > acknowledged + 1:
            findings.add("extra", where)

    def calls_in(self, state: State) -> int | str:
        """Returns how many calls a state holds, or what is wrong with it."""
        digest = hashlib.sha256()
        for path, content in state.items():
            digest.update(f"{path} {-1 if content is None else len(content)} ".encode())
            digest.update(content or b"")
        key = digest.digest()
        if key not in self._seen:
            self._put(state)
            self._seen[key] = self._calls_in(self._scratch / self._file.relative_to(self._root))
        return self._seen[key]

    def _put(self, state: State) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        for path, content in state.items():
            target = self._scratch / Path(path).relative_to(self._root)
            if content is None:
                target.mkdir()
            else:
                target.write_bytes(content)

    def _calls_in(self, file: Path) -> int | str:
        try:
            store = Store(f"sqlite:///{file}", self._base, observe=lambda *_: None)
        except Exception as error:  # whatever it is, a caller is told nothing
            return f"it does not open: {error!r}"
        try:
            stored = store.verified()
        except Exception as error:
            return f"the chain: {error!r}"
        finally:
            store.close()
        # The process that recovered it has ended well, so the file says it all.
        connection = sqlite3.connect(file)
        try:
            replies = dict(connection.execute("SELECT idempotency_key, response FROM reply"))
            ((integrity,),) = connection.execute("PRAGMA integrity_check(1)")
        except sqlite3.Error as error:
            return f"the replies: {error}"
        finally:
            connection.close()
        if integrity != "ok":
            return f"the pages: {integrity}"
        calls = self._calls[: len(replies)]
        if replies != {call.key: call.response for call in calls}:
            return "replies are not those that were sent"
        newest = stored[-1].link.vocabulary if stored else self._base
        promised = calls[-1] if calls else None
        if (newest.revision, newest.fingerprint) != (
            (promised.revision, promised.fingerprint) if promised else (0, self._base.fingerprint)
        ):
            return "a reply without its revision, or a revision without its reply"
        return len(replies)
