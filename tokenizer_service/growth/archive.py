"""The log as a file that proves itself: lines of canonical JSON, then their hash.

The schema of `ExportRevisions` describes the lines. Reading verifies as it goes, so
that damage is found at its line and memory holds only what is new.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rpc.errors import InvalidField, VocabularyMismatch
from tokenizer_service.growth import imported_change
from tokenizer_service.store import Call, StoredReply, StoredRevision
from tokenizer_service.store.timestamps import MAX_US, from_us, to_us
from vocabulary import BrokenChainError, Link, Reference, canonical, chain

FORMAT = "lockstep.revisions.v1"

# A revision of 64 tokens with two vectors of 65536 numbers each, in base64.
MAX_LINE_BYTES = 64 * 2**20
MAX_ARCHIVE_BYTES = 2 * 2**30

_KEY = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile("[0-9a-f]{64}")


class ArchiveWriter:
    """Writes the lines of one archive, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._num_revisions = 0
        self._num_replies = 0

    def base(self, base: Reference) -> bytes:
        """Returns the first line."""
        members = {
            "tokenizer_id": base.tokenizer_id,
            "fingerprint": base.fingerprint,
            "size": base.size,
        }
        return self._line({"format": FORMAT, "base": members})

    def revision(self, stored: StoredRevision) -> bytes:
        """Returns the line of a revision."""
        self._num_revisions += 1
        link = stored.link
        members = {
            "revision": link.vocabulary.revision,
            "parent_fingerprint": link.parent_fingerprint,
            "fingerprint": link.vocabulary.fingerprint,
            "size": link.vocabulary.size,
            "change": canonical.change_members(link.change),
            "create_time_us": to_us(stored.create_time),
        }
        return self._line({"revision": members})

    def reply(self, reply: StoredReply) -> bytes:
        """Returns the line of an answered call."""
        self._num_replies += 1
        members = {
            "idempotency_key": reply.call.idempotency_key,
            "request_sha256": reply.call.request_sha256,
            "revision": reply.revision,
            "response": base64.b64encode(reply.response).decode("ascii"),
            "create_time_us": to_us(reply.create_time),
        }
        return self._line({"reply": members})

    def end(self) -> bytes:
        """Returns the last line."""
        members = {
            "revisions": self._num_revisions,
            "replies": self._num_replies,
            "sha256": self._hash.hexdigest(),
        }
        return self._line({"end": members})

    def _line(self, members: object) -> bytes:
        line = canonical.encode_json(members) + b"\n"
        self._hash.update(line)
        return line


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive holds beyond what was known.

    Attributes:
        newest: its newest state.
        revisions: the revisions that were new when it was read, verified, oldest first.
        replies: all of them.
    """

    newest: Reference
    revisions: Sequence[StoredRevision]
    replies: Sequence[StoredReply]


class ArchiveReader:
    """Reads the bytes of one archive, cut anywhere."""

    def __init__(self, base: Reference, present: Sequence[StoredRevision]) -> None:
        """Begins to read.

        Args:
            base: revision 0 here.
            present: the revisions that are here already.
        """
        self._base = base
        self._present = present
        self._newest = base
        self._revisions: list[StoredRevision] = []
        self._replies: list[StoredReply] = []
        self._keys: set[str] = set()
        self._hash = hashlib.sha256()
        self._rest = bytearray()
        self._num_bytes = 0
        self._line_number = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Reads the next bytes.

        Raises:
            InvalidField: they are not valid at this place of an archive.
            VocabularyMismatch: the archive is of another chain than what is present.
        """
        self._num_bytes += len(data)
        if self._num_bytes > MAX_ARCHIVE_BYTES:
            raise self._wrong(f"an archive has at most {MAX_ARCHIVE_BYTES} bytes")
        *ends, rest = data.split(b"\n")
        for end in ends:
            line = bytes(self._rest) + end
            self._rest.clear()
            self._read(line)
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:
            raise self._wrong(f"a line has at most {MAX_LINE_BYTES} bytes")

    def finish(self) -> Archive:
        """Returns what was read.

        Raises:
            InvalidField: the archive was cut off.
        """
        if not self._ended or self._rest:
            raise self._wrong("the archive is cut off")
        return Archive(self._newest, self._revisions, self._replies)

    def _read(self, line: bytes) -> None:
        self._line_number += 1
        try:
            members = json.loads(line)
            if canonical.encode_json(members) != line:
                raise ValueError
            step = self._step_for(members)
            step(members)
        except BrokenChainError as error:
            raise self._wrong(str(error)) from None
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise self._wrong("it is not valid at this place of an archive") from None
        self._hash.update(line + b"\n")

    def _step_for(self, members: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
        if self._ended:
            raise ValueError
        if self._line_number == 1:
            return self._read_base
        (kind,) = members
        steps = {"reply": self._read_reply, "end": self._read_end}
        if not self._replies:
            steps["revision"] = self._read_revision
        return steps[kind]

    def _read_base(self, members: dict[str, Any]) -> None:
        if members["format"] != FORMAT:
            raise ValueError
        base = Reference(revision=0, **members["base"])
        if base != self._base:
            raise VocabularyMismatch(base, self._base)

    def _read_revision(self, line: dict[str, Any]) -> None:
        members = line["revision"]
        change = canonical.read_change(members["change"])
        imported_change.check(change, self._newest.size)
        after = chain.follow(self._newest, change)
        link = Link(members["parent_fingerprint"], change, after)
        stored = StoredRevision(link, _read_time(members))
        claimed = (members["revision"], members["fingerprint"], members["size"])
        if claimed != (after.revision, after.fingerprint, after.size) or (
            link.parent_fingerprint != self._newest.fingerprint
        ):
            raise BrokenChainError(after.revision, "its fingerprint, number or size differs")
        if after.revision > len(self._present):
            self._revisions.append(stored)
        else:
            check_same(after, self._present[after.revision - 1].link.vocabulary)
        self._newest = after

    def _read_reply(self, line: dict[str, Any]) -> None:
        members = line["reply"]
        key, request, revision = (
            members[name] for name in ("idempotency_key", "request_sha256", "revision")
        )
        if type(revision) is not int or not 0 <= revision <= self._newest.revision:
            raise ValueError
        if not (_KEY.fullmatch(key) and key not in self._keys):
            raise ValueError
        if not _SHA256.fullmatch(request):
            raise ValueError
        self._keys.add(key)
        response = base64.b64decode(members["response"], validate=True)
        self._replies.append(
            StoredReply(Call(key, request), revision, response, _read_time(members))
        )

    def _read_end(self, line: dict[str, Any]) -> None:
        expected = {
            "revisions": self._newest.revision,
            "replies": len(self._replies),
            "sha256": self._hash.hexdigest(),
        }
        if line["end"] != expected:
            raise self._wrong("the archive is incomplete")
        self._ended = True

    def _wrong(self, why: str) -> InvalidField:
        return InvalidField("data", f"line {self._line_number}: {why}")


def check_same(archived: Reference, present: Reference) -> None:
    """Checks that a revision of an archive is the one that is here.

    Raises:
        VocabularyMismatch: it is another.
    """
    if archived != present:
        raise VocabularyMismatch(archived, present)


def _read_time(members: dict[str, Any]) -> datetime:
    microseconds = members["create_time_us"]
    if type(microseconds) is not int or not 0 <= microseconds <= MAX_US:
        raise ValueError
    return from_us(microseconds)
