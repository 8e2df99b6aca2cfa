"""The error of a model that cannot be used."""


class CheckpointError(Exception):
    """The model named cannot be used. The message is one line and says the remedy."""
