"""Errors in the words of a call, where the requests that it is made of have others. Pure: no I/O.

A text that is continued is a row of `Encode`, and then of `Generate`: an error of either names
the text, as the caller did, and no list that the caller has not given.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from lockstep_client.exceptions import FieldViolation, LockstepError

ROWS: Final = ("prompts", "texts", "rows", "conversations")
"""The keywords of what has an entry per row, whichever request it is part of."""

SHOWN: Final = ("selection.top_k", "selection.token_ids")
"""What says which tokens of a distribution are shown."""

_PLACE: Final = re.compile(r"(?P<field>[\w.]+)(?:\[(?P<row>\d+)\])?(?=$|[.\[])")
_FIRST: Final = re.compile(r"[Rr]ow (?P<row>\d+) ")
_AT: Final = re.compile(r"(?<= at )row (?P<row>\d+), ")
_OF: Final = re.compile(r" (?:of|for) row \d+\b")
_ROW: Final = re.compile(r"\brow (?P<row>\d+)\b")


@dataclass(frozen=True, slots=True)
class Argument:
    """What a caller has given where requests have fields of other names.

    Attributes:
        keyword: what the caller calls it.
        row: its index in what the caller gave; None where that is no list of them.
        is_list: whether each row of a request is an entry of it.
        fields: what it is in requests.
    """

    keyword: str
    row: int | None = None
    is_list: bool = False
    fields: tuple[str, ...] = ROWS

    @contextmanager
    def named(self) -> Iterator[None]:
        """Lets errors that are raised inside of the block name it."""
        try:
            yield
        except LockstepError as error:
            self.rename(error)
            raise

    def rename(self, error: LockstepError) -> None:
        """Lets an error name it, in place of what a call within has named it."""
        within, error._argument = error._argument, self._name(None)
        error.violations = tuple(
            FieldViolation(*self._said(violation.field, violation.description, within))
            for violation in error.violations
        )
        text = "; ".join(f"{each.field}: {each.description}" for each in error.violations)
        error.args = (text or self._sentence(str(error), within), *error.args[1:])
        if self.row is not None and "row" in error.metadata:
            error.metadata["row"] = str(self.row)

    def _name(self, row: str | None) -> str:
        """Returns what the caller calls a row of a request; None for all rows."""
        index = row if self.is_list else self.row
        return self.keyword if index is None else f"{self.keyword}[{index}]"

    def _said(self, field: str, description: str, within: str) -> tuple[str, str]:
        """Returns which field of a request is wrong, and how, in the caller's words."""
        if within in self.fields and re.match(rf"{within}(?=$|[.\[])", field):
            return self._name(None) + field.removeprefix(within), description
        place = _PLACE.match(field)
        if place is None or place["field"] not in self.fields:
            return field, self._reworded(description)
        row = place["row"]
        if (found := _FIRST.match(description) or _AT.search(description)) is not None:
            row = found["row"]
            description = description[: found.start()] + description[found.end() :]
        return self._name(row) + field[place.end() :], self._reworded(description)

    def _sentence(self, text: str, within: str) -> str:
        """Returns a message in the caller's words, whether it begins with a field or a row."""
        if _FIRST.match(text) and self.fields == ROWS:
            return ": ".join(self._said(ROWS[0], text, within))
        field, colon, description = text.partition(": ")
        if colon and " " not in field:
            return ": ".join(self._said(field, description, within))
        return self._reworded(text)

    def _reworded(self, text: str) -> str:
        """Returns a text in which rows of a request are called as the caller calls them."""
        if self.fields != ROWS:
            return text
        if not self.is_list and self.row is None:
            return _ROW.sub("it", _OF.sub("", text))
        return _ROW.sub(lambda found: self._name(found["row"]), text)
