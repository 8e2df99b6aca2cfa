"""The one way in which a tokenizer service cannot be followed."""


class ConflictError(Exception):
    """The tokenizer service has another vocabulary than this model."""
