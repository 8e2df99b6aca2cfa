"""New ids, and what ids stand for."""

from typing import Literal

import msgspec

from model_service.protocol.calls import Request, Response


class SpellTokens(msgspec.Struct, tag="spell_tokens"):
    """Says which bytes the ids of revision 0 stand for. Comes before any stop string. No answer."""

    token_bytes: list[bytes]
    """By id."""


class NewRow(msgspec.Struct, frozen=True):
    """One new id, and its embedding rows."""

    token_id: int
    initialization: Literal["mean_of_pieces", "mean", "copy", "zero", "values"]
    generable: bool
    previous_ids: list[int] = []
    copy_token_id: int | None = None
    input_values: bytes = b""
    """`[H]` float32, little-endian, for `values`."""

    output_values: bytes = b""
    """`[H]` float32, little-endian; empty means the input values."""

    token_bytes: bytes = b""
    """The bytes that the id stands for."""


class VocabularyGrown(Response, tag="vocabulary_grown"):
    """The revision is applied."""

    revision: int
    size: int
    """Number of ids."""

    reserved_rows: int
    """Rows that can be added before more memory is allocated."""

    added_rows_sha256: str
    """Over all rows added since revision 0, by id, as `GetVocabularyState` describes."""

    pause_s: float
    """Longest stretch for which no step could run, also to make room for this revision. Of one that
    several revisions share, each has its own part."""


class GrowVocabulary(Request[VocabularyGrown], tag="grow_vocabulary"):
    """Appends one revision. Answered by `VocabularyGrown`."""

    revision: int
    """Number of the new revision: the newest one plus one."""

    rows: list[NewRow]
    """Rows in order of id, without gaps, starting at the present size."""
