"""Everything that is wrong with a request, collected so that one answer names it all."""

from rpc.errors import FieldViolation, InvalidField

MAX_REPORTED = 16
"""Violations named in one answer: a batch can hold thousands of wrong rows."""


class Violations:
    """Collects violations; `check` reports them as one error."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Notes one violation.

        Args:
            field: path of the field in the request.
            description: what would be right. Never text or tokens of the request.
        """
        if len(self._found) < MAX_REPORTED:
            self._found.append(FieldViolation(field, description))

    def check(self) -> None:
        """Raises what was found.

        Raises:
            InvalidField: at least one violation was noted.
        """
        if self._found:
            raise InvalidField.of(self._found)
