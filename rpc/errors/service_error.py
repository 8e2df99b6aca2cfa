"""The base of every failure that a caller may see."""

from dataclasses import dataclass

MAX_VIOLATIONS = 7
"""Most violations that one answer names: its details have to fit the metadata that clients read."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong with a request.

    Attributes:
        field: path of the field in the request, for example
            `generation_config.top_k` or `items[3].text`.
        description: what is wrong and what would be right. Never holds text or
            tokens of the request.
    """

    field: str
    description: str


class ServiceError(Exception):
    """Base of every error whose message may be shown to the caller.

    Keyword arguments become `ErrorInfo.metadata`, so that a client never has to
    parse the message.

    Attributes:
        metadata: every value the message mentions, as text.
        retry_delay_s: when a retry of the same request can succeed, and None
            when it never will.
    """

    def __init__(
        self, message: str, *, retry_delay_s: float | None = None, **metadata: object
    ) -> None:
        super().__init__(message)
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.retry_delay_s = retry_delay_s
