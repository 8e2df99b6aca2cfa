"""Everything that is wrong with a request, collected so that one answer names it all."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from rpc.errors import MAX_VIOLATIONS, FieldViolation, InvalidField

_T = TypeVar("_T")


class Violations:
    """Collects violations; `check` reports them as one error.

    Methods that read a value return something for a wrong one too, which means nothing.
    """

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Notes one violation, unless there are as many as one answer names.

        Args:
            field: path of the field in the request.
            description: what would be right. Never text or tokens of the request.
        """
        if len(self._found) < MAX_VIOLATIONS:
            self._found.append(FieldViolation(field, description))

    def check(self) -> None:
        """Raises what was found.

        Raises:
            InvalidField: at least one violation was noted.
        """
        if self._found:
            raise InvalidField.of(self._found)

    def in_range(self, field: str, value: int, low: int, high: int) -> int:
        """Returns a number, and notes it if it is not in [low, high]."""
        if not low <= value <= high:
            self.add(field, f"must be in [{low}, {high}]")
        return value

    def check_count(self, field: str, items: Sequence[object], most: int) -> bool:
        """Says whether there is at least one item and not more than `most`, and notes otherwise."""
        if not 1 <= len(items) <= most:
            self.add(field, f"must have 1 to {most} entries, not {len(items)}")
            return False
        return True

    def known(self, field: str, value: int, meanings: Mapping[int, _T]) -> _T:
        """Returns what the value of an enum means, and notes it if this version does not know."""
        if value not in meanings:
            self.add(field, "has a value that this version does not know")
            return next(iter(meanings.values()))
        return meanings[value]
